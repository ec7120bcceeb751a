package fs

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	iofs "io/fs"
	"regexp"
	"slices"
	"strings"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

// Manifest says what an export holds. It has nothing in it that differs from run to run or from
// machine to machine: the same view of the same checkpoint has the same manifest, byte for byte.
type Manifest struct {
	Version int          `json:"version"`
	Source  string       `json:"source"` // see Fingerprint
	Views   []ViewRecord `json:"views" most:"65536"`
	Files   []FileRecord `json:"files" most:"1048576"` // by name
}

// manifestVersion is the version of the manifest's form.
const manifestVersion = 1

// ViewRecord is what one view of an export was asked to be.
type ViewRecord struct {
	Dir       string `json:"directory"`
	Layout    string `json:"layout"`
	DType     string `json:"dtype"`
	Rank      int    `json:"ep_rank"`
	Ranks     int    `json:"ep_size"`
	MTP       string `json:"mtp"`
	Include   string `json:"include,omitempty"`
	Exclude   string `json:"exclude,omitempty"`
	Scales    string `json:"scales"`
	Unscaled  bool   `json:"unscaled,omitempty"`
	ShardSize int64  `json:"shard_size"`
}

// FileRecord is one file of an export.
type FileRecord struct {
	Name string `json:"name"` // slash-separated, from the export's root
	Size int64  `json:"size"`
	// SHA256 is of the bytes before the first tensor, of all of a file that has none: so each byte is in
	// one sum. To sum files whole as well made an export on two cores 1.6 times as slow.
	SHA256  string         `json:"sha256,omitempty"`
	Tensors []TensorRecord `json:"tensors,omitempty" most:"1048576"` // in the order of their bytes
}

// TensorRecord is one tensor of a file.
type TensorRecord struct {
	Name   string  `json:"name"`
	DType  string  `json:"dtype"`
	Shape  []int64 `json:"shape" most:"64"`
	Begin  int64   `json:"begin"` // in the file
	End    int64   `json:"end"`
	SHA256 string  `json:"sha256"`
}

// RecordView writes down what a view is.
func RecordView(v View) ViewRecord {
	o := v.Plan.Options
	r := ViewRecord{
		Dir: v.Dir, Layout: o.Layout, DType: safetensors.BF16.String(), Rank: o.EP.Rank, Ranks: o.EP.Size,
		MTP: cmp.Or(o.MTP, "auto"), Scales: cmp.Or(o.Scales, "amax"), Unscaled: o.Unscaled, ShardSize: v.ShardSize,
	}
	if o.DType != safetensors.Invalid {
		r.DType = o.DType.String()
	}
	if o.Include != nil {
		r.Include = o.Include.String()
	}
	if o.Exclude != nil {
		r.Exclude = o.Exclude.String()
	}
	return r
}

// View plans the recorded view for a checkpoint.
func (r ViewRecord) View(c *adapter.Checkpoint) (View, error) {
	d, err := safetensors.ParseDType(r.DType)
	if err != nil {
		return View{}, err
	}
	o := adapter.Options{Layout: r.Layout, DType: d, EP: adapter.EP{Rank: r.Rank, Size: r.Ranks}, MTP: r.MTP, Scales: r.Scales, Unscaled: r.Unscaled}
	if r.Include != "" {
		if o.Include, err = regexp.Compile(r.Include); err != nil {
			return View{}, err
		}
	}
	if r.Exclude != "" {
		if o.Exclude, err = regexp.Compile(r.Exclude); err != nil {
			return View{}, err
		}
	}
	p, err := adapter.NewPlan(c, o)
	return View{Dir: r.Dir, Plan: p, ShardSize: r.ShardSize}, err
}

// Fingerprint tells checkpoints apart without reading them whole: the SHA-256 of every stored
// tensor's key, dtype and shape, and of 64 bytes from the middle of up to 256 of them.
// It does not depend on where the checkpoint lies or how its tensors are spread over files.
func Fingerprint(c *adapter.Checkpoint) (string, error) {
	tensors := slices.Clone(c.Tensors())
	slices.SortFunc(tensors, func(a, b *adapter.Stored) int { return cmp.Compare(a.Key, b.Key) })
	h := sha256.New()
	step := max(1, len(tensors)/256)
	for i, t := range tensors {
		fmt.Fprintf(h, "%q %s %d\n", t.Key, t.DType, t.Shape)
		if i%step != 0 {
			continue
		}
		size, err := safetensors.Size(t.DType, t.Shape)
		if err != nil {
			return "", fmt.Errorf("%s: %w", t.Key, err)
		}
		sample := make([]byte, min(64, size))
		if n, err := t.File.ReadAt(sample, t.Offset+(size-int64(len(sample)))/2); n < len(sample) {
			return "", fmt.Errorf("%s: %s: %w", t.File.Name(), t.Key, err)
		}
		h.Write(sample)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// manifest gives the manifest of the tree, still without checksums.
func (f *FS) manifest() (*Manifest, error) {
	m := &Manifest{Version: manifestVersion}
	var err error
	if f.checkpoint != nil {
		if m.Source, err = Fingerprint(f.checkpoint); err != nil {
			return nil, err
		}
	}
	for _, v := range f.views {
		m.Views = append(m.Views, RecordView(v))
	}
	err = iofs.WalkDir(f, ".", func(name string, d iofs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			m.Files = append(m.Files, FileRecord{Name: name, Size: info.Size()})
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(m.Files, func(a, b FileRecord) int { return cmp.Compare(a.Name, b.Name) })
	if err := m.check(false); err != nil { // what is written can be read back
		return nil, fmt.Errorf("there can be no manifest of these views: %w", err)
	}
	return m, nil
}

// difference says in what way two manifests are of different things, or nothing if they are not.
func (m *Manifest) difference(other *Manifest) string {
	switch {
	case m.Version != other.Version:
		return fmt.Sprintf("of form %d, not %d", other.Version, m.Version)
	case m.Source != other.Source:
		return "of another source"
	case !slices.Equal(m.Views, other.Views):
		return fmt.Sprintf("of another view: %s, not %s", flagsOf(other.Views), flagsOf(m.Views))
	case !slices.EqualFunc(m.Files, other.Files, sameFile):
		return "of other files"
	}
	return ""
}

// flagsOf gives views as the command line asks for them.
func flagsOf(views []ViewRecord) string {
	all := make([]string, len(views))
	for i, v := range views {
		all[i] = v.flags()
	}
	return strings.Join(all, " and ")
}

// flags gives a view as the command line asks for it, without the defaults of the rarer flags.
func (r ViewRecord) flags() string {
	s := "--layout " + r.Layout + " --dtype " + strings.ToLower(r.DType)
	for _, f := range []struct {
		given bool
		text  string
	}{
		{r.Ranks > 0, fmt.Sprintf(" --ep %d/%d", r.Rank, r.Ranks)},
		{r.MTP != "auto", " --mtp " + r.MTP},
		{r.Include != "", fmt.Sprintf(" --include %q", r.Include)},
		{r.Exclude != "", fmt.Sprintf(" --exclude %q", r.Exclude)},
		{r.Scales != "amax", " --scales " + r.Scales},
		{r.Unscaled, " --unscaled"},
		{r.ShardSize > 0, fmt.Sprintf(" --shard-size %dB", r.ShardSize)},
		{r.Dir != "", " in " + r.Dir},
	} {
		if f.given {
			s += f.text
		}
	}
	return s
}

// disagree finds the first tensor in which a record and the header of its file disagree, and says how.
func (f *FileRecord) disagree(header []TensorRecord) (tensor, problem string) {
	for i := range max(len(f.Tensors), len(header)) {
		switch {
		case i == len(f.Tensors):
			return header[i].Name, "is in the header of the file, but not in the manifest"
		case i == len(header):
			return f.Tensors[i].Name, "is in the manifest, but not in the header of the file"
		case !sameTensor(&f.Tensors[i], &header[i]):
			return f.Tensors[i].Name, fmt.Sprintf("is %v in the manifest, but %v in the header of the file", &f.Tensors[i], &header[i])
		}
	}
	return "", ""
}

func sameTensor(a, b *TensorRecord) bool {
	return a.Name == b.Name && a.DType == b.DType && a.Begin == b.Begin && a.End == b.End && slices.Equal(a.Shape, b.Shape)
}

// String says what a tensor is and where.
func (t *TensorRecord) String() string {
	return fmt.Sprintf("%.200q, %s of shape %v, bytes %d to %d", t.Name, t.DType, t.Shape, t.Begin, t.End)
}

func sameFile(a, b FileRecord) bool { return a.Name == b.Name && a.Size == b.Size }

// encode gives the manifest as JSON with one file or tensor a line, so that diff shows what differs.
func (m *Manifest) encode() ([]byte, error) {
	var b bytes.Buffer
	views, err := json.Marshal(m.Views)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(&b, "{\n\"version\": %d,\n\"source\": %q,\n\"views\": %s,\n\"files\": [", m.Version, m.Source, views)
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
	b.Truncate(b.Len() - 1)
	b.WriteString(",\"tensors\": [")
	for i, t := range tensors {
		if line, err = json.Marshal(t); err != nil {
			return err
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("\n ")
		b.Write(line)
	}
	b.WriteString("]}")
	return nil
}

// tensorsOf lists the tensors of a file, none for files that are not safetensors.
func tensorsOf(name string, r io.ReaderAt, size int64) ([]TensorRecord, error) {
	if !isShard(name) {
		return nil, nil
	}
	h, err := safetensors.ReadHeader(r, size)
	if err != nil {
		return nil, err
	}
	list := make([]TensorRecord, len(h.Tensors))
	for i, t := range h.Tensors {
		list[i] = TensorRecord{Name: t.Name, DType: t.DType.String(), Shape: t.Shape, Begin: h.DataOffset + t.Begin, End: h.DataOffset + t.End}
	}
	return list, nil
}

// checksums computes the SHA-256 of each tensor in a file, and of what stands before them, from bytes that
// come in order.
type checksums struct {
	sum    hash.Hash
	record FileRecord
	at     int64
	next   int // tensor that is being read or comes next; -1: what stands before all tensors
}

func newChecksums(name string, size int64, tensors []TensorRecord) *checksums {
	return &checksums{sum: sha256.New(), next: -1, record: FileRecord{Name: name, Size: size, Tensors: slices.Clone(tensors)}}
}

// part is where what is being summed ends in the file, and where its sum belongs.
func (c *checksums) part() (end int64, sum *string) {
	switch tensors := c.record.Tensors; {
	case c.next >= 0:
		return tensors[c.next].End, &tensors[c.next].SHA256
	case len(tensors) > 0:
		return tensors[0].Begin, &c.record.SHA256
	}
	return c.record.Size, &c.record.SHA256
}

// write takes the next bytes.
func (c *checksums) write(p []byte) {
	for {
		end, sum := c.part()
		n := min(int64(len(p)), end-c.at)
		c.sum.Write(p[:n])
		p, c.at = p[n:], c.at+n
		if c.at < end {
			return
		}
		*sum = hex.EncodeToString(c.sum.Sum(nil))
		if c.next == len(c.record.Tensors)-1 {
			return
		}
		c.sum.Reset()
		c.next++
	}
}

// result gives the record once every byte has been written.
func (c *checksums) result() (FileRecord, error) {
	if c.at != c.record.Size {
		return FileRecord{}, fmt.Errorf("%s: %d of %d bytes came", c.record.Name, c.at, c.record.Size)
	}
	c.write(nil) // tensors without bytes
	return c.record, nil
}
