"""placeholder"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """x"""
    config = ConfigDict()
    config.models = ConfigDict()
    mixture = {"coupling": "mixture"}
    for coupling, noise, width in (
        ("affine", "uniform", 300),
        ("affine", "flow", 200),
        ("mixture", "uniform", 128),
        ("mixture", "flow", 128),
    ):
        config.models[f"{coupling}_{noise}"] = ConfigDict(
            {"coupling": coupling, "noise": noise, "width": width}
        )
    config.compare = (
        ("affine_uniform", "mixture_uniform"),
        ("affine_flow", "mixture_flow"),
        ("affine_uniform", "affine_flow"),
        ("mixture_uniform", "mixture_flow"),
    )
    config.seeds = (0, 1, 2, 3, 4)
    config.together = False
    config.seed = 0
    config.dataset = "digits"
    config.data_dir = ""
    config.num_validation = 300
    config.density = "flow"
    config.coupling = "mixture"
    config.num_components = 8
    config.couplings = (4, 2, 0)
    config.pointwise = False
    config.network = "dense"
    config.width = 128
    config.num_layers = 2
    config.attention = False
    config.dropout = 0.2
    config.noise = "flow"
    config.noise_width = 64
    config.noise_layers = 2
    config.noise_couplings = 4
    config.noise_features = 0
    config.objective = "elbo"
    config.num_samples = 1
    config.num_groups = 1
    config.alpha = 0.5
    config.beta = 0.5
    config.sleep = False
    config.refit_noise = ""
    config.refit_steps = 500
    config.optimizer = "adam_cosine"
    config.learning_rate = 1e-3
    config.warmup_steps = 0
    config.batch_size = 128
    config.num_steps = 1500
    config.clip_norm = 0.0
    config.ema_decay = 0.998
    config.log_every = 50
    config.save_every = 250
    config.keep_checkpoints = 1
    config.validation_samples = 16
    config.evaluation_images = 0
    config.evaluation_samples = (1, 4, 16, 64)
    config.evaluation_seed = 0
    config.images_per_pass = 20
    config.samples_per_pass = 64
    config.sample_grid = 100
    return config
