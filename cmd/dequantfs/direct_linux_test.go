package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/dequantfs/dequantfs/fs"
)

// The zero Mount is one whose shards cannot be mapped. Package fs tests how it tells kernels apart.
func TestAMountThatCannotBeMappedSaysSo(t *testing.T) {
	var out bytes.Buffer
	m := mounted{mount: new(fs.Mount)}
	m.sayUnmapped(slog.New(slog.NewTextHandler(&out, nil)))
	for _, want := range []string{"--direct", "Linux 6.6", "ENODEV", "pread"} {
		if strings.Count(out.String(), "\n") != 1 || !strings.Contains(out.String(), want) {
			t.Errorf("%q lacks %s", &out, want)
		}
	}
}
