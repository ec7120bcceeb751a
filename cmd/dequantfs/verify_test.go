package main

import (
	"regexp"
	"slices"
	"testing"

	"github.com/spf13/cobra"
)

func TestEveryFlagOfAViewCountsForVerify(t *testing.T) {
	c := &cobra.Command{}
	new(viewFlags).register(c)
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^ *(?:-., )?--([a-z-]+)`).FindAllStringSubmatch(c.Flags().FlagUsages(), -1) {
		if m[1] != "follow-links" { // it says what may be opened, not what is shown
			names = append(names, m[1])
		}
	}
	slices.Sort(names)
	if want := slices.Sorted(slices.Values(viewFlagNames)); !slices.Equal(names, want) {
		t.Errorf("the flags of a view are %v, verify knows %v", names, want)
	}
}
