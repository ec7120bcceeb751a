package export

import (
	"context"
	"io"
	"maps"
	"os"
	"path"
	"slices"

	"github.com/dequantfs/dequantfs/adapter/readback"
)

// indexBytes is the largest index that is read. One of a million tensors has 100 MB.
const indexBytes = 256 << 20

// againstRecord compares a file with its record in a manifest.
func (v *verifier) againstRecord(
	ctx context.Context, m *Manifest, r FileRecord, file *os.File,
) error {
	c := newChecksums(r)
	err := v.pieces(ctx, r, file, func(p []byte, _ int64) error {
		c.write(p)
		return nil
	})
	if err != nil {
		return err
	}
	got, err := c.result()
	if err != nil {
		return err
	}
	if v.sums(r, got) {
		v.meaning(m, r, file)
	}
	v.checked(r)
	return nil
}

// sums compares checksums. It reports whether the bytes outside the tensors are right.
func (v *verifier) sums(want, got FileRecord) bool {
	for i, t := range got.Tensors {
		if sum := want.Tensors[i].SHA256; t.SHA256 != sum {
			v.differ(want.Name, t.Name, "SHA-256 is %s, not %s", t.SHA256, sum)
		}
	}
	right := got.SHA256 == want.SHA256
	if !right {
		v.differ(want.Name, "", "SHA-256 outside its tensors is %s, not %s",
			got.SHA256, want.SHA256)
	}
	return right
}

// meaning compares the header of a shard, or the index of a view, with the manifest. The checksums
// do not show that a manifest is wrong about them.
func (v *verifier) meaning(m *Manifest, r FileRecord, file *os.File) {
	switch {
	case isShard(r.Name):
		v.header(r, file)
	case isIndex(path.Base(r.Name)) && m.hasView(path.Dir(r.Name)):
		v.index(m, r, file)
	}
}

// isIndex reports whether a file of a view is its index.
func isIndex(name string) bool { return name == indexName || name == mistralIndexName }

// header compares the header of a shard with its record. It first compares where the data begins,
// so that it reads no more than the manifest has room for.
func (v *verifier) header(r FileRecord, file *os.File) {
	if at := dataOffset(file); at != r.dataOffset() {
		v.differ(r.Name, "", "its tensors begin at byte %d, not at %d as the manifest says",
			at, r.dataOffset())
		return
	}
	tensors, err := tensorsOf(r.Name, file, r.Size)
	if err != nil {
		v.differ(r.Name, "",
			"has the checksums of the manifest, but is not a safetensors file: %v", err)
		return
	}
	if tensor, problem := r.disagree(tensors); problem != "" {
		v.differ(r.Name, tensor, "%s", problem)
	}
}

// index compares an index with the manifest. It finds a shard that is missing in both the directory
// and the manifest, because the index names its tensors.
func (v *verifier) index(m *Manifest, r FileRecord, file *os.File) {
	weights, err := readIndex(file)
	if err != nil {
		v.differ(r.Name, "", "has the checksum of the manifest, but is not an index: %v", err)
		return
	}
	known := m.tensorsIn(path.Dir(r.Name))
	for _, key := range slices.Sorted(maps.Keys(weights)) {
		if name := weights[key]; !known[place{name, key}] {
			v.differ(r.Name, key,
				"should be in %s by the index, but the manifest does not have it", name)
			return
		}
	}
}

// readIndex returns the file of each tensor in an index.
func readIndex(file *os.File) (map[string]string, error) {
	var index struct {
		WeightMap map[string]string `json:"weight_map" most:"1048576"`
	}
	_, err := file.Seek(0, io.SeekStart)
	if err == nil {
		err = readback.DecodeFile(file, &index, readback.Limits{Bytes: indexBytes, Loose: true})
	}
	return index.WeightMap, err
}

// place is a tensor in a file.
type place struct{ file, tensor string }

// tensorsIn returns the tensors of the files in a directory.
func (m *Manifest) tensorsIn(dir string) map[place]bool {
	known := map[place]bool{}
	for _, f := range m.Files {
		if path.Dir(f.Name) != dir {
			continue
		}
		for _, t := range f.Tensors {
			known[place{path.Base(f.Name), t.Name}] = true
		}
	}
	return known
}
