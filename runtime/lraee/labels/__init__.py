"""Label files, label sets, their embeddings and CLIP's tokenizer. May import: errors."""
