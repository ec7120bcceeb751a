package expr

import "slices"

// Decodes is part of [Node]. Only dequantize decodes codes; the other nodes do if a node that they are
// made of does.

// Decodes is false: the stored bytes are the tensor's.
func (n *load) Decodes() bool { return false }

// Decodes is true.
func (n *dequantize) Decodes() bool { return true }

// Decodes is that of the node that is cast.
func (n *cast) Decodes() bool { return n.of.Decodes() }

// Decodes is that of the node that is cut.
func (n *slice) Decodes() bool { return n.of.Decodes() }

// Decodes is that of the node with another shape.
func (n *reshape) Decodes() bool { return n.of.Decodes() }

// Decodes is that of the node whose axes are swapped.
func (n *transposed) Decodes() bool { return n.of.Decodes() }

// Decodes is true if that of any part is.
func (n *concat) Decodes() bool { return anyDecodes(n.parts) }

// Decodes is true if that of any part is.
func (n *stack) Decodes() bool { return anyDecodes(n.parts) }

// Decodes is that of the values that are quantized.
func (n *quantize) Decodes() bool { return n.by.of.Decodes() }

// Decodes is that of the values that scales are computed of.
func (n *amax) Decodes() bool { return n.by.of.Decodes() }

func anyDecodes(parts []node) bool { return slices.ContainsFunc(parts, node.Decodes) }
