package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// strange has characters that reverse the text, that have no width, and that are invisible.
const strange = "x\u202e\u2066\u200b\ufeff\u00ad\u3164\U000e0041y"

// TestNamesAreShownAsTheyAre has strange characters in every name that a stranger may choose: those
// of the folder, of a shard, of tensors and of the model type.
func TestNamesAreShownAsTheyAre(t *testing.T) {
	requireFUSE(t)
	s := newSession(t)
	source, mnt, out := filepath.Join(s.dir, "source"+strange), filepath.Join(s.dir,
		"mnt"+strange), filepath.Join(s.dir, "out"+strange)
	err := errors.Join(
		writeCheckpoint(source, "noindex", "clone=o_proj:"+strange,
			`config.model_type="`+strange+`"`),
		os.Rename(filepath.Join(source, "model-00001-of-000001.safetensors"),
			filepath.Join(source, "model"+strange+".safetensors")))
	if err != nil {
		t.Fatal(err)
	}
	s.run("mount", "--layout", "hf", source, mnt)
	for _, args := range [][]string{
		{"mount", source, mnt}, {"status"}, {"status", "--json"},
		{"ls", source, "--layout", "hf"}, {"ls", source, "--layout", "hf", "--json"}, {"ls",
			source}, {"ls", source + "/none"},
		{"export", source, out, "--layout", "hf"}, {"export", source, out + "2", "--layout", "hf",
			"--json"},
		{"verify", out}, {"verify", mnt}, {"doctor", source + "/none"}, {"bench",
			source + "/none"}, {"umount", out}, {"umount", mnt},
	} {
		c := s.command(args...)
		text, err := c.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if i := strings.IndexFunc(string(text),
			func(r rune) bool { return unseen(r) && r != '\n' }); i >= 0 {
			t.Errorf("%s: it prints %+q", args[0], text[max(i-40, 0):min(i+20, len(text))])
		}
		if named := strings.Contains(string(text), `\u202e`); !named && exit != nil {
			t.Errorf("%s does not print the name: %s", args[0], text)
		}
	}
}
