"""Speed, always as a comparison: candidate and baseline interleaved in one run, answers compared first."""
