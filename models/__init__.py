"""What acts on pictures as signals: degradation operators, networks, training, recipes, the zoo. No Beam here."""
