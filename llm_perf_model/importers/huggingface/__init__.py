"""Hugging Face `config.json` -> the spec of a model: one reader, tables of words and of families."""
