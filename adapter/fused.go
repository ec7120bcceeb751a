package adapter

import (
	"fmt"
	"slices"
	"strings"
)

// fusion lists the parts of a fused matrix, top to bottom. It is empty for other matrices.
type fusion struct {
	parts   [][]int64 // the rows of each part, once for each division that the configuration allows
	missing string    // why the configuration does not give the parts; empty if it does
}

// note explains in an error why the parts of a fused matrix are unknown.
func (f fusion) note() string {
	if f.missing == "" {
		return ""
	}
	return " (" + f.missing + ")"
}

// fusedNames are the endings of fused matrices. parts reads the rows of their parts from the
// configuration, which may allow several divisions.
var fusedNames = []struct {
	ends   string
	needs  string // fields, for messages
	halves bool   // the name alone says that there are two parts of one size
	parts  func(settings) [][]int64
}{
	{"qkv_proj", "num_attention_heads, num_key_value_heads and head_dim", false,
		queryKeyValueParts},
	{"gate_up_proj", "intermediate_size", true, gateUpParts},
}

// fusionOf finds the parts of a matrix. For gate_up_proj it assumes halves if the configuration
// gives no parts, so that scales that may belong to halves are refused.
func (s settings) fusionOf(key string, shape []int64) (f fusion) {
	module := strings.TrimSuffix(key, ".weight")
	for _, n := range fusedNames {
		if !strings.HasSuffix(module, n.ends) || len(shape) < 2 {
			continue
		}
		rows := shape[len(shape)-2]
		for _, parts := range n.parts(s) {
			if total(parts) == rows && slices.Min(parts) > 0 {
				f.parts = append(f.parts, parts)
			}
		}
		if len(f.parts) > 0 {
			return f
		}
		f.missing = fmt.Sprintf("it is fused, and config.json gives no %s that add up to %d rows",
			n.needs, rows)
		if n.halves && len(shape) == 2 && rows%2 == 0 {
			f.parts = [][]int64{{rows / 2, rows / 2}}
		}
	}
	return f
}

func total(parts []int64) (n int64) {
	for _, p := range parts {
		n += p
	}
	return n
}

// queryKeyValueParts returns the rows of query, key and value. Value heads may have their own size.
func queryKeyValueParts(s settings) [][]int64 {
	heads, ok := s.integer("num_attention_heads")
	if !ok {
		return nil
	}
	kv, ok := s.integer("num_key_value_heads")
	if !ok {
		kv = heads
	}
	dim, ok := s.integer("head_dim")
	if hidden, okHidden := s.integer("hidden_size"); !ok && heads > 0 && okHidden {
		dim, ok = hidden/heads, true
	}
	if !ok {
		return nil
	}
	value, ok := s.integer("v_head_dim")
	if !ok {
		value = dim
	}
	return [][]int64{{int64(heads) * int64(dim), int64(kv) * int64(dim), int64(kv) * int64(value)}}
}

// gateUpParts returns the rows of gate and up, for an MLP and for experts.
func gateUpParts(s settings) (all [][]int64) {
	for _, field := range []string{"intermediate_size", "moe_intermediate_size",
		"shared_expert_intermediate_size"} {
		if n, ok := s.integer(field); ok {
			all = append(all, []int64{int64(n), int64(n)})
		}
	}
	return all
}
