"""Nested structures of tensors, in an order that is the same on each backend."""

from keras import tree


def map_in_order(function, structure):
    """As `tree.map_structure`, but in the order of `tree.flatten`.

    On PyTorch, Keras maps dictionaries in the order of their items, and flattens them by key.
    """
    return tree.pack_sequence_as(structure, [function(x) for x in tree.flatten(structure)])
