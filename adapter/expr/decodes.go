package expr

import "slices"

// Decodes is a method of [Node]. Only dequantize and packed decode codes. Another node decodes if
// one of its parts does.

// Decodes returns false, because the stored bytes are those of the tensor.
func (n *load) Decodes() bool { return false }

// Decodes returns true.
func (n *dequantize) Decodes() bool { return true }

// Decodes returns true.
func (n *packed) Decodes() bool { return true }

// Decodes reports whether the converted node decodes.
func (n *cast) Decodes() bool { return n.of.Decodes() }

// Decodes reports whether the multiplied node decodes.
func (n *multiply) Decodes() bool { return n.of.Decodes() }

// Decodes reports whether the converted node decodes.
func (n *narrow) Decodes() bool { return n.of.Decodes() }

// Decodes reports whether the sliced node decodes.
func (n *slice) Decodes() bool { return n.of.Decodes() }

// Decodes reports whether the reshaped node decodes.
func (n *reshape) Decodes() bool { return n.of.Decodes() }

// Decodes reports whether the transposed node decodes.
func (n *transposed) Decodes() bool { return n.of.Decodes() }

// Decodes reports whether the node with the rows decodes.
func (n *swapRows) Decodes() bool { return n.of.Decodes() }

// Decodes reports whether the multiplied node or the vector decodes.
func (n *scaledBy) Decodes() bool { return n.of.Decodes() || n.by.Decodes() }

// Decodes reports whether any part decodes.
func (n *concat) Decodes() bool { return anyDecodes(n.parts) }

// Decodes reports whether any part decodes.
func (n *stack) Decodes() bool { return anyDecodes(n.parts) }

// Decodes reports whether the quantized values are decoded first.
func (n *quantize) Decodes() bool { return n.by.of.Decodes() }

// Decodes reports whether the values of the scales are decoded first.
func (n *amax) Decodes() bool { return n.by.of.Decodes() }

func anyDecodes(parts []node) bool { return slices.ContainsFunc(parts, node.Decodes) }
