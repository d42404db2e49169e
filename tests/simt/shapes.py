"""Forms and sizes that the kernels run at."""

FORMS = ("dense", "compaction", "reference")

# (N, P, D, C): zero, one, around a word, odd, more than one tile of rows, of depth, of columns, of paths.
SHAPES = [
    (0, 3, 4, 5),
    (3, 0, 4, 5),
    (3, 4, 0, 5),
    (3, 4, 5, 0),
    (1, 1, 1, 1),
    (31, 31, 31, 31),
    (33, 33, 33, 33),
    (130, 9, 17, 16),
    (70, 3, 100, 65),
    (66, 5, 72, 72),
    (140, 70, 8, 10),
    (40, 5, 20, 1),
    (40, 5, 1, 20),
]

# (N, D, H): also slices whose rows are aligned to 16 bytes, to 4, to less.
SELECTOR_SHAPES = [(0, 3, 4), (3, 0, 4), (3, 4, 0), (1, 1, 1), (33, 33, 33), (130, 72, 140), (65, 40, 64)]
