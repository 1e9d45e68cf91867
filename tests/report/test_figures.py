from fastsnn.report import published
from fastsnn.report.figures import accuracies

from ..sweep.test_report import rows


def test_a_figure_for_each_network_training_and_mode():
    both = [*rows(("sew_resnet18", "sew_resnet50")), *rows(bn="drift")]
    assert list(accuracies(both)) == [
        "accuracy-digits-sew_resnet18-16-frozen",
        "accuracy-digits-sew_resnet50-16-frozen",
        "accuracy-digits-sew_resnet18-16-drift",
    ]
    figures = accuracies([*rows(), *rows(epochs=2, device="NVIDIA H100 80GB")])
    assert [list(figure.axes[0].lines[0].get_ydata()) for figure in figures.values()] == [[100, 98]] * 2, "no means"
    titles = [figure._suptitle.get_text().replace("\n", " ") for figure in figures.values()]
    assert "epochs 4, device AVX512" in titles[0] and "epochs 2, device NVIDIA H100 80GB" in titles[1]
    assert list(figures) == [
        "accuracy-digits-sew_resnet18-16-frozen-epochs-4-device-AVX512",
        "accuracy-digits-sew_resnet18-16-frozen-epochs-2-device-NVIDIA_H100_80GB",
    ]


def test_images_in_another_number_have_a_panel_of_their_own():
    (figure,) = accuracies([*rows(), *rows(images=100, correct=90)]).values()
    assert [axes.get_title() for axes in figure.axes] == ["images 100", "images 200"]


def test_the_paper_is_quoted_only_where_the_cell_is_the_same():
    paper = {"data": "cifar10", "width": 64, "eps_255": 6.0, "bn": "drift"}
    of_paper = rows(("sew_resnet50",), eps=(0,), **paper)
    pgd = next(row for row in of_paper if (row["attack"], row["pool"]) == ("pgd", "avg"))
    assert published.beside(pgd, "pgd") == 33.29 and published.beside(pgd, "clean") == 75.28
    others = ({"eps_255": 8.0}, {"steps": 20}, {"width": 16}, {"T": 8}, {"data": "digits"}, {"coding": "rate"})
    for change in (
        *others,
        {"restarts": 5},
        {"surrogate": "sigmoid:4"},
        {"bn": "frozen"},
        {"alpha": 0.02},
        {"defence": "snn_rat"},
    ):
        assert published.beside({**pgd, **change}, "pgd") is None
    assert published.beside({**pgd, "eps_255": 8.0}, "clean") == 75.28
    assert published.beside(pgd, "fgsm") is None
