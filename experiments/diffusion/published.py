"""Bits/dim of diffusion models that others published on CIFAR-10. None of them was run here."""

_DDPM = "Ho et al. 2020 (arXiv 2006.11239), Table 2"
PUBLISHED: dict[str, list[tuple[str, float, str, str]]] = {
    "cifar10": [
        ("DDPM, trained on L", 3.70, "bound, test", _DDPM),
        ("DDPM, trained on L_simple", 3.75, "bound: rate 1.78, distortion 1.97", _DDPM),
        ("Improved DDPM", 2.94, "bound, test", "Nichol & Dhariwal 2021 (arXiv 2102.09672)"),
        (
            "VDM, released checkpoint", 2.637, "bound, test; 2.522 with augmentation",
            "google-research/vdm, README",
        ),
        (
            "score SDE, probability flow", 2.99, "uniform-dequantization bound, up to solver error",
            "Song et al. 2021 (arXiv 2011.13456)",
        ),
    ],
}  # fmt: skip
