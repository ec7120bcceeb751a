package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// usageTemplate is cobra's template with three changes: it fits a screen of 80 columns, lists the
// help topics, and does not show a command that needs a subcommand without one.
func usageTemplate(t *testing.T) string {
	t.Helper()
	cobra.AddTemplateFunc("wrapped",
		func(c *cobra.Command) string { return c.LocalFlags().FlagUsagesWrapped(80) })
	cobra.AddTemplateFunc("topics", listTopics)
	text := new(cobra.Command).UsageTemplate()
	const flags, more = ".LocalFlags.FlagUsages", "{{if .HasAvailableSubCommands}}\n\nUse "
	const alone = "{{if .Runnable}}"
	for _, part := range []string{flags, more, alone} {
		if strings.Count(text, part) != 1 {
			t.Fatalf("cobra has another template now: %s", text)
		}
	}
	text = strings.Replace(text, alone, "{{if and .Runnable (not .HasAvailableSubCommands)}}", 1)
	text = strings.Replace(text, more, "{{if not .HasParent}}\n\n{{topics}}{{else "+more[2:], 1)
	return strings.Replace(text, flags, "wrapped .", 1)
}

// TestUsageIsThatOfCobra compares the usage of every command with what cobra's template gives.
func TestUsageIsThatOfCobra(t *testing.T) {
	ours, oracle := newRoot(), newRoot()
	oracle.SetUsageFunc(nil)
	oracle.SetUsageTemplate(usageTemplate(t))
	for _, root := range []*cobra.Command{ours, oracle} {
		root.InitDefaultHelpCmd()
		root.InitDefaultCompletionCmd("completion")
	}
	// The root, help, completion and its four shells are not in the list of commands.
	if n := compareUsages(t, ours, oracle); n < len(commands)+7 {
		t.Errorf("only %d commands were compared", n)
	}
}

// compareUsages compares two commands and all commands below, and counts them.
func compareUsages(t *testing.T, ours, oracle *cobra.Command) int {
	t.Helper()
	ours.InitDefaultHelpFlag()
	oracle.InitDefaultHelpFlag()
	if got, want := ours.UsageString(), oracle.UsageString(); got != want {
		t.Errorf("%s: usage\n%s\nwant\n%s", ours.CommandPath(), got, want)
	}
	n, others := 1, oracle.Commands()
	for i, sub := range ours.Commands() {
		n += compareUsages(t, sub, others[i])
	}
	return n
}

func TestVersionFlag(t *testing.T) {
	const missing = "dequantfs: a command is missing\ndequantfs: hint: see dequantfs --help\n"
	for line, want := range map[string]string{
		"--version":            "",
		"-v":                   "",
		"--version=true":       "",
		"--version mount":      "",
		"-v mount":             "",
		"--version novel":      "",
		"novel --version":      "",
		"--version=false":      missing,
		"--version=false word": "dequantfs: there is no command \"word\"\n",
		"mount --version":      "dequantfs: unknown flag: --version\n",
		"--version --novel":    "dequantfs: unknown flag: --novel\n",
	} {
		var out, errs bytes.Buffer
		wantOut, wantStatus := versionLine()+"\n", 0
		if want != "" {
			wantOut, wantStatus = "", 2
		}
		status := run(t.Context(), strings.Fields(line), strings.NewReader(""), &out, &errs)
		if status != wantStatus || out.String() != wantOut ||
			!strings.HasPrefix(errs.String(), want) || (want == "") != (errs.Len() == 0) {
			t.Errorf("%s: status %d, %q, %q; want %q", line, status, &out, &errs, want)
		}
	}
}
