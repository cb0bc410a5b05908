"""The DALL-E joint bound: what `experiments.dalle` trains, scores and draws."""
