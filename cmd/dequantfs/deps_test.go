package main

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/dequantfs/dequantfs/"

// arrows are the imports of our own that each package may have. fs alone may import
// go-fuse, and cmd alone what only people need.
var arrows = map[string][]string{
	"fp8":                      {},
	"adapter/safetensors":      {},
	"adapter/readback":         {},
	"adapter/source":           {},
	"adapter/remote":           {"adapter/source", "adapter/remote/diskcache"},
	"adapter/remote/diskcache": {},
	"adapter/expr":             {"fp8", "adapter/safetensors", "adapter/source"},
	"adapter":                  {"fp8", "adapter/safetensors", "adapter/source", "adapter/expr"},
	"fs/mounts":                {},
	"fs/pagecache":             {},
	"fs/units":                 {"adapter/expr"},
	"fs": {"adapter/safetensors", "adapter/source", "adapter/expr", "adapter",
		"fs/mounts", "fs/units"},
	"fs/export":             {"adapter/safetensors", "adapter/readback", "adapter", "fs"},
	"fs/serve":              {"adapter", "fs"},
	"cmd/dequantfs/startup": {},
	"cmd/dequantfs": {"cmd/dequantfs/startup", "fp8", "adapter/safetensors", "adapter/remote",
		"adapter/remote/diskcache", "adapter/source", "adapter/readback", "adapter/expr", "adapter",
		"fs", "fs/mounts", "fs/pagecache", "fs/units", "fs/export", "fs/serve"},
}

// onlyIn says which packages may import a module.
var onlyIn = map[string][]string{
	"github.com/hanwen/go-fuse/":    {"fs", "cmd/dequantfs"},
	"github.com/hashicorp/":         {"fs/units"},
	"github.com/spf13/":             {"cmd/dequantfs"},
	"github.com/cpuguy83/":          {"cmd/dequantfs"},
	"github.com/russross/":          {"cmd/dequantfs"},
	"github.com/VictoriaMetrics/":   {"cmd/dequantfs"},
	"github.com/prometheus/":        {}, // it is large, so only tests may
	"github.com/vbauerster/":        {"cmd/dequantfs"},
	"github.com/x448/float16":       {"fp8"},
	"github.com/dustin/go-humanize": {"cmd/dequantfs"},
	"github.com/minio/minio-go/":    {"adapter/remote"},
	"gopkg.in/ini.v1":               {"adapter/remote"},
	"unsafe":                        {"fp8", "fs/pagecache"},
	"net":                           {"adapter/remote", "cmd/dequantfs"},
	"net/http":                      {"adapter/remote", "fs/serve", "cmd/dequantfs"},
}

type listedPackage struct {
	ImportPath, Doc string
	Imports         []string
}

func listPackages(t *testing.T) []listedPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Doc,Imports", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listedPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p listedPackage
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

func TestImportsGoOneWay(t *testing.T) {
	for _, p := range listPackages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		if strings.HasPrefix(name, "testdata/") {
			continue
		}
		allowed, known := arrows[name]
		if !known {
			t.Errorf("package %s has no place in the plan of packages", name)
		}
		for _, imported := range p.Imports {
			ours, is := strings.CutPrefix(imported, module)
			if is && !slices.Contains(allowed, ours) {
				t.Errorf("%s must not import %s", name, ours)
			}
			for prefix, places := range onlyIn {
				if is := imported == prefix || strings.HasSuffix(prefix,
					"/") && strings.HasPrefix(imported, prefix); is &&
					!slices.Contains(places, name) {
					t.Errorf("%s must not import %s: only %v may", name, imported, places)
				}
			}
		}
	}
}

func TestEveryPackageHasAComment(t *testing.T) {
	for _, p := range listPackages(t) {
		if p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}
