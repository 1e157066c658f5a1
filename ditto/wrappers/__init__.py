"""nn.Modules that give a model's forward the shape that an engine has."""
