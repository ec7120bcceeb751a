package main

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/spf13/pflag"

	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// viewOf parses view flags.
func viewOf(t *testing.T, args ...string) *viewFlags {
	t.Helper()
	v, c := new(viewFlags), &cobra.Command{}
	v.register(c)
	if err := c.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	return v
}

// given has every view flag with a value other than its default.
var given = map[string]string{
	"layout": "native", "dtype": "f32", "cast": "all", "ep": "1/4", "mtp": "drop", "include": "a,b", "exclude": "b c",
	"shard-size": "1234567B", "scales": "ones", "unscaled": "true", "follow-links": "true",
	"remote-memory": "512MiB", "remote-timeout": "30s", "disk-cache": "d", "disk-cache-size": "1GiB",
}

// TestEveryViewFlagIsPassedOn: another process gets each flag, and verify knows which of them say
// what is shown.
func TestEveryViewFlagIsPassedOn(t *testing.T) {
	viewOf(t).set.VisitAll(func(f *pflag.Flag) {
		arg := "--" + f.Name + "=" + given[f.Name]
		v := viewOf(t, arg)
		if v.changed() == isSourceFlag(f.Name) {
			t.Errorf("%s: changed is %v", arg, v.changed())
		}
		if !slices.Contains(v.arguments(), arg) {
			t.Errorf("%s: passed on as %q", arg, v.arguments())
		}
		again := viewOf(t, v.arguments()...)
		got, want := again.set.Lookup(f.Name).Value, v.set.Lookup(f.Name).Value
		if got.String() != want.String() {
			t.Errorf("%s: %s, passed on %s", f.Name, want, got)
		}
	})
	if v := viewOf(t); v.changed() || !slices.Equal(v.arguments(), []string{"--layout=hf"}) {
		t.Errorf("without flags: %v, %q", v.changed(), v.arguments())
	}
}

func TestDTypesAreSpelledOurWayAndThatOfTorch(t *testing.T) {
	for text, want := range map[string]safetensors.DType{
		"auto": safetensors.Invalid, "Auto": safetensors.Invalid,
		"bf16": safetensors.BF16, "BF16": safetensors.BF16, "bfloat16": safetensors.BF16,
		"f16": safetensors.F16, "float16": safetensors.F16, "fp16": safetensors.F16,
		"Float16": safetensors.F16,
		"f32":     safetensors.F32, "float32": safetensors.F32, "FP32": safetensors.F32,
	} {
		if r, err := viewOf(t, "--dtype", text).check(); err != nil || r.options.DType != want {
			t.Errorf("%s: %v, %v", text, r, err)
		}
	}
	for _, text := range []string{"", "half", "f64", "torch.float16"} {
		var usage usageError
		if _, err := viewOf(t, "--dtype="+text).check(); !errors.As(err, &usage) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestPatternsMatchAtTheStart, also those with alternatives.
func TestPatternsMatchAtTheStart(t *testing.T) {
	r, err := viewOf(t, "--include", "a|b", "--exclude", ".*z|y").check()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][2]bool{"ax": {true, false}, "xb": {false, false},
		"bz": {true, true}, "xy": {false, false}} {
		if got := [2]bool{r.options.Include.MatchString(name),
			r.options.Exclude.MatchString(name)}; got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// A pattern that is an expression only between our parentheses matches other names than it says.
func TestAPatternIsAnExpressionOfItsOwn(t *testing.T) {
	for _, text := range []string{"(", "a)|(b", "a)|b|(?:c", "(?=x)", strings.Repeat("(", 1000) +
		strings.Repeat(")", 1000)} {
		var usage usageError
		if re, err := parsePattern("exclude", text); !errors.As(err, &usage) {
			t.Errorf("%.20q is read as %v, %v", text, re, err)
		}
	}
}

// TestReadersAreNamedForEveryLayout: a command that was given no layout says who reads the one it
// takes.
func TestReadersAreNamedForEveryLayout(t *testing.T) {
	for _, name := range layoutNames() {
		if readersOf(name, new(adapter.Checkpoint)) == "" {
			t.Errorf("layout %s has no readers", name)
		}
	}
	for _, c := range []struct {
		args []string
		want string
	}{{nil, "dequantfs: layout hf, for transformers, vLLM"}, {[]string{"--layout", "hf"},
		""}, {[]string{"--quiet"}, ""}} {
		var said bytes.Buffer
		v, command := new(viewFlags), &cobra.Command{}
		v.register(command)
		addQuiet(command)
		command.SetErr(&said)
		if err := command.ParseFlags(c.args); err != nil {
			t.Fatal(err)
		}
		v.sayLayout(logger(command), new(adapter.Checkpoint))
		if !strings.HasPrefix(said.String(), c.want) || c.want == "" && said.Len() > 0 {
			t.Errorf("%q: it says %q", c.args, &said)
		}
	}
}

// The folder of a layout is the mountpoint if only one layout is shown, also if there are ranks.
func TestFoldersOfLayouts(t *testing.T) {
	for dir, want := range map[string]string{
		"": "/mnt", "rank-0-of-2": "/mnt", "hf": "/mnt/hf", "hf/rank-0-of-2": "/mnt/hf",
	} {
		if got := folderOf("/mnt", "hf", dir); got != want {
			t.Errorf("%q: %s, want %s", dir, got, want)
		}
	}
}
