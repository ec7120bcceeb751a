package fs

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func init() { children["tensors"] = describeTensors }

// describeTensors reads safetensors files whole and prints their tensors as JSON, by file. The
// first argument is the way.
func describeTensors(args []string) error {
	all := map[string]map[string]shown{}
	for _, path := range args[1:] {
		data, err := ways[args[0]](path)
		if err == nil {
			all[path], err = tensorsShown(data)
		}
		if err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(all)
}

// tensorsBy has a child read files in one way.
func tensorsBy(t *testing.T, how string, paths []string) (all map[string]map[string]shown) {
	t.Helper()
	cmd, out := start(t, "tensors", append([]string{how}, paths...)...)
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v", how, err)
	}
	if err := json.Unmarshal(out.Bytes(), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestEveryMountedFormatEqualsItsLibrary(t *testing.T) {
	wantMountedGoldens(t, formatGoldens(t), slices.Sorted(maps.Keys(ways))...)
}

// wantMountedGoldens compares mounted views with what they must show. All goldens are mounted at
// once and read by one child. They are mounted anew for each way, so that no way finds its pages in
// memory.
func wantMountedGoldens(t *testing.T, goldens map[string]goldenSource, how ...string) {
	trees := map[string]*FS{}
	for name, g := range goldens {
		t.Run(name, func(sub *testing.T) {
			g.open(sub, Options{}) // one that does not open fails alone
			trees[name] = g.open(t, Options{})
		})
	}
	for _, how := range how {
		t.Run(how, func(t *testing.T) {
			files := map[string]map[string][]string{} // golden, view, paths
			var all []string
			for name, f := range trees {
				_, root := mountFS(t, f, MountOptions{})
				files[name] = map[string][]string{}
				for view := range goldens[name].views {
					files[name][view] = inMount(t, f, root, view)
					all = append(all, files[name][view]...)
				}
			}
			tensors := tensorsBy(t, how, all)
			for name, views := range files {
				for view, paths := range views {
					got := map[string]shown{}
					for _, path := range paths {
						maps.Copy(got, tensors[path])
					}
					wantShown(t, filepath.Join(name, view), got, goldens[name].views[view])
				}
			}
		})
	}
}
