package export

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	iofs "io/fs"
	"slices"
)

// Manifest describes an export. It has nothing that differs between runs or machines: the same
// view of the same checkpoint has the same manifest, byte for byte.
type Manifest struct {
	Version int          `json:"version"`
	Source  string       `json:"source"` // see adapter.Checkpoint.Fingerprint
	Views   []ViewRecord `json:"views" most:"65536"`
	Files   []FileRecord `json:"files" most:"1048576"` // by name
}

// manifestVersion is the version of the manifest's format.
const manifestVersion = 1

// FileRecord describes one file of an export.
type FileRecord struct {
	Name string `json:"name"` // slash-separated, relative to the export
	Size int64  `json:"size"`
	// SHA256 covers the bytes before the first tensor. For a file without tensors, it covers the
	// whole file. So each byte is in one checksum, and is summed only once.
	SHA256  string         `json:"sha256,omitempty"`
	Tensors []TensorRecord `json:"tensors,omitempty" most:"1048576"` // in the order of their bytes
}

// TensorRecord describes one tensor of a file.
type TensorRecord struct {
	Name   string  `json:"name"`
	DType  string  `json:"dtype"`
	Shape  []int64 `json:"shape" most:"64"`
	Begin  int64   `json:"begin"` // in the file
	End    int64   `json:"end"`
	SHA256 string  `json:"sha256"`
}

// manifestOf returns the manifest of a tree, without checksums.
func manifestOf(t Tree) (*Manifest, error) {
	source, err := t.Fingerprint()
	if err != nil {
		return nil, err
	}
	m := &Manifest{Version: manifestVersion, Source: source}
	for _, v := range t.Views() {
		m.Views = append(m.Views, RecordView(v))
	}
	if m.Files, err = filesOf(t); err != nil {
		return nil, err
	}
	if err := m.check(false); err != nil { // a manifest that is written must be readable
		return nil, fmt.Errorf("these views cannot have a manifest: %w", err)
	}
	return m, nil
}

// filesOf lists the files of a tree by name.
func filesOf(t Tree) (files []FileRecord, err error) {
	err = iofs.WalkDir(t, ".", func(name string, d iofs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			files = append(files, FileRecord{Name: name, Size: info.Size()})
		}
		return err
	})
	slices.SortFunc(files, func(a, b FileRecord) int { return cmp.Compare(a.Name, b.Name) })
	return files, err
}

// difference says how two manifests differ apart from checksums. If they do not, it is empty.
func (m *Manifest) difference(other *Manifest) string {
	switch {
	case m.Version != other.Version:
		return fmt.Sprintf("of version %d, not %d", other.Version, m.Version)
	case m.Source != other.Source:
		return "of another source"
	case !slices.Equal(m.Views, other.Views):
		return fmt.Sprintf("of another view: %s, not %s", flagsOf(other.Views), flagsOf(m.Views))
	case !slices.EqualFunc(m.Files, other.Files, sameFile):
		return "of other files, perhaps of another version of dequantfs"
	}
	return ""
}

func sameFile(a, b FileRecord) bool { return a.Name == b.Name && a.Size == b.Size }

// encode returns the manifest as JSON. Each file and tensor is on one line, so that diff shows
// which one differs.
func (m *Manifest) encode() ([]byte, error) {
	var b bytes.Buffer
	views, err := json.Marshal(m.Views)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(&b, "{\n\"version\": %d,\n\"source\": %q,\n\"views\": %s,\n\"files\": [",
		m.Version, m.Source, views)
	for i, f := range m.Files {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('\n')
		if err := f.encode(&b); err != nil {
			return nil, err
		}
	}
	b.WriteString("\n]\n}\n")
	return b.Bytes(), nil
}

// encode appends the record as JSON.
func (f FileRecord) encode(b *bytes.Buffer) error {
	tensors := f.Tensors
	f.Tensors = nil
	line, err := json.Marshal(f)
	if err != nil {
		return err
	}
	b.Write(line)
	if len(tensors) == 0 {
		return nil
	}
	b.Truncate(b.Len() - len("}"))
	b.WriteString(",\"tensors\": [")
	if err := encodeTensors(b, tensors); err != nil {
		return err
	}
	b.WriteString("]}")
	return nil
}

// encodeTensors appends tensors as JSON, one per line.
func encodeTensors(b *bytes.Buffer, tensors []TensorRecord) error {
	for i, t := range tensors {
		line, err := json.Marshal(t)
		if err != nil {
			return err
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("\n ")
		b.Write(line)
	}
	return nil
}
