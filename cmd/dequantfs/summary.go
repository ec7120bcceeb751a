package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// summaryOf describes in one line how the weights of a checkpoint are stored.
func summaryOf(c *adapter.Checkpoint) (string, error) {
	counts, err := adapter.Summary(c)
	return formatSummary(counts), err
}

// writeSummary prints the summary of a checkpoint.
func writeSummary(w io.Writer, c *adapter.Checkpoint, asJSON bool) error {
	counts, err := adapter.Summary(c)
	if err != nil {
		return err
	}
	if !asJSON {
		_, err := fmt.Fprintln(w, formatSummary(counts))
		return err
	}
	type count struct {
		Weights int    `json:"weights"`
		Format  string `json:"format,omitempty"`
		Where   string `json:"where,omitempty"`
		Scales  string `json:"scales,omitempty"`
	}
	all := make([]count, len(counts))
	for i, n := range counts {
		all[i] = count{Weights: n.Weights, Format: n.Format, Where: n.Where}
		if n.Scales != safetensors.Invalid {
			all[i].Scales = n.Scales.String()
		}
	}
	return writeJSON(w, map[string]any{"version": jsonVersion, "source": c.Path, "summary": all})
}

// formatSummary joins the counts: "1,234 weights in FP8, blocks of 128 × 128, scales F32; 61 per
// row; 204 tensors not quantized". It omits the parts that equal those of the previous count.
func formatSummary(counts []adapter.Count) string {
	parts := make([]string, len(counts))
	var before adapter.Count
	for i, n := range counts {
		parts[i] = formatCount(n, before)
		before = n
	}
	return strings.Join(parts, "; ")
}

func formatCount(n, before adapter.Count) string {
	number := humanize.Comma(int64(n.Weights))
	if n.Format == "" {
		return number + " " + plural(n.Weights, "tensor", "tensors") + " not quantized"
	}
	where, brief := strings.CutPrefix(n.Where, "one scale ")
	s := number + " " + plural(n.Weights, "weight", "weights") + " in " + n.Format + ", " + where
	switch {
	case n.Format == before.Format && brief:
		s = number + " " + where
	case n.Format == before.Format:
		s = number + " in " + where
	}
	if n.Scales != safetensors.Invalid && (n.Format != before.Format || n.Scales != before.Scales) {
		s += ", scales " + n.Scales.String()
	}
	return s
}
