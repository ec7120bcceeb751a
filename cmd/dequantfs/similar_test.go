package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func TestSimilarNames(t *testing.T) {
	names := []string{"native", "hf", "split", "hf-fp8"}
	for word, want := range map[string][]string{
		"natve": {"native"}, "NATIVE": {"native"}, "hf-fp16": {"hf-fp8"}, "hf-": {"hf", "hf-fp8"},
		"": nil, "gguf": nil, "frobnicate": nil, "na": {"native"}, "gg": nil,
	} {
		if got := similar(word, names); !slices.Equal(got, want) {
			t.Errorf("%q looks like %q, want %q", word, got, want)
		}
	}
}

func TestUnknownFlags(t *testing.T) {
	for line, want := range map[string]string{
		"mount --layuot=hf a b":   "unknown flag: --layuot\ndid you mean --layout?",
		"mount --lay hf a b":      "unknown flag: --lay\ndid you mean --layout?",
		"ls -layout hf a":         "unknown shorthand flag: 'l' in -layout\ndid you mean --layout?",
		"ls -layout=hf a":         "unknown shorthand flag: 'l' in -layout=hf\ndid you mean --layout?",
		"mount --shard_size=1 a":  "unknown flag: --shard_size\ndid you mean --shard-size?",
		"mount --cache a b":       "unknown flag: --cache\ndid you mean --cache-size?",
		"umount --lazzy":          "unknown flag: --lazzy\ndid you mean --lazy?",
		"cache prune --sise 1GiB": "unknown flag: --sise\ndid you mean --size?",
		"status --jsn":            "unknown flag: --jsn\ndid you mean --json?",
		"--versoin":               "unknown flag: --versoin\ndid you mean --version?",
		"ls --frobnicate a":       "unknown flag: --frobnicate\nsee dequantfs ls --help",
		"ls -z a":                 "unknown shorthand flag: 'z' in -z\nsee dequantfs ls --help",
		"mount --idle 5 a b": "invalid argument \"5\" for \"--idle\" flag: it has no unit: write " +
			"30s or 5m\nsee dequantfs mount --help",
	} {
		message, hint, _ := strings.Cut(want, "\n")
		want = "dequantfs: " + message + "\ndequantfs: hint: " + hint + "\n"
		if status, said := saidOf(t, strings.Fields(line)); status != 2 || said != want {
			t.Errorf("%s: status %d, %q, want %q", line, status, said, want)
		}
	}
}

// TestEachFlagIsFoundByAMisspelling leaves the last letter out of each flag of each command.
func TestEachFlagIsFoundByAMisspelling(t *testing.T) {
	tried := 0
	var try func(c *cobra.Command)
	try = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			try(sub)
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			word := "--" + f.Name[:len(f.Name)-1]
			if len(word) < 4 || c.Flags().Lookup(word[2:]) != nil {
				return
			}
			tried++
			args := append(strings.Fields(c.CommandPath())[1:], word)
			status, said := saidOf(t, args)
			if status != 2 || !strings.Contains(said, "did you mean ") ||
				!strings.Contains(said, "--"+f.Name) {
				t.Errorf("%s %s: status %d, %s", c.CommandPath(), word, status, said)
			}
		})
	}
	try(newRoot())
	if tried < 100 {
		t.Errorf("only %d flags were tried", tried)
	}
}

// saidOf runs the command in this process, and returns its status and its messages.
func saidOf(t *testing.T, args []string) (status int, said string) {
	var out, errs bytes.Buffer
	status = run(t.Context(), args, strings.NewReader(""), &out, &errs)
	return status, errs.String()
}
