package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dequantfs/dequantfs/adapter"
)

// layoutNames are the values of --layout.
func layoutNames() (names []string) {
	for _, l := range adapter.KnownLayouts() {
		names = append(names, l.Name)
	}
	return names
}

// readersOf names the programs that read a layout of a checkpoint.
func readersOf(layout string, c *adapter.Checkpoint) string {
	if layout == adapter.LayoutHF && c.IsMistral() {
		return "programs that read Mistral's own layout, such as vLLM with --config-format " +
			"mistral --load-format mistral"
	}
	return adapter.ReadersOf(c, layout)
}

// noSuchLayout refuses a name that is not a layout, and names those that look like it.
func noSuchLayout(name string) error {
	err := flagError("layout", name, "one of "+strings.Join(layoutNames(), ", "))
	if near := similar(name, layoutNames()); len(near) > 0 {
		return usageError{withHint(err, "did you mean %s?", strings.Join(near, " or "))}
	}
	return err
}

// checkLayouts refuses names that are not layouts, and names that are given twice.
func checkLayouts(names []string) error {
	for i, name := range names {
		if !slices.Contains(layoutNames(), name) {
			return noSuchLayout(name)
		}
		if slices.Contains(names[:i], name) {
			return usageError{fmt.Errorf("--layout %s is given twice", name)}
		}
	}
	return nil
}

// didYouMean asks whether a known model_type is meant. It returns "" if there is none.
func didYouMean(similar string) string {
	if similar == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", similar)
}
