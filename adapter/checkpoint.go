package adapter

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
)

const (
	configName = "config.json"
	indexName  = "model.safetensors.index.json"
	shardEnd   = ".safetensors"

	maxConfig  = 16 << 20 // bytes of config.json
	maxIndex   = 64 << 20 // bytes of the index
	maxTensors = 1 << 20  // of all shards together; the largest published checkpoints have a third of it

	headerAhead = 128 << 10 // bytes of each shard that the system may fetch while another is parsed; most headers are shorter
)

// Checkpoint is an opened source: every shard held open, every header checked. It is
// not changed after Open and safe for concurrent use; what it opened stays readable
// until Close, also when the files are renamed or removed.
type Checkpoint struct {
	Path   string  // what was opened, for messages
	Config *Config // nil for a single file that has no config.json beside it

	shards   []string
	tensors  []*Stored
	byKey    map[string]*Stored
	unlisted int // tensors that the index does not have
	side     []SideFile
	pairing  pairing
	files    []*sourceFile
}

// Stored is a tensor of the source with the shard that it lies in.
type Stored struct {
	expr.Source
	Shard string
}

// OpenOptions change how a source is opened. The zero value is right for most.
type OpenOptions struct {
	Logger      *slog.Logger // of what is odd, but no reason to fail; nil: nowhere
	FollowLinks bool         // follow symlinks out of the source's root
}

// Open opens a directory with config.json and shards, one .safetensors file, or a Hub
// id ("org/name", "org/name@revision") in the local Hugging Face cache. Every shard is
// opened, its header checked, and compared with the index, if there is one. No tensor
// data is read. Errors name file and tensor.
//
// Symlinks are followed inside the source's folder, and for a snapshot of the Hugging
// Face cache inside the folder of its model. Others are refused, unless
// o.FollowLinks. Names are resolved once: afterwards the open files are used.
func Open(source string, o OpenOptions) (*Checkpoint, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Checkpoint{Path: source}
	if err := c.open(source, o); err != nil {
		_ = c.Close() // the error at hand says more
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	return c, nil
}

// Close closes every file. Reads that run are waited for.
func (c *Checkpoint) Close() error {
	var errs []error
	for _, f := range c.files {
		errs = append(errs, f.close())
	}
	return errors.Join(errs...)
}

// Tensor finds a stored tensor by key.
func (c *Checkpoint) Tensor(key string) (*Stored, bool) {
	t, ok := c.byKey[key]
	return t, ok
}

// Tensors gives all stored tensors, by shard and then in data order. Not to be changed.
func (c *Checkpoint) Tensors() []*Stored { return c.tensors }

// Shards names the shard files in natural order. Not to be changed.
func (c *Checkpoint) Shards() []string { return c.shards }

// SideFiles are the files to pass through byte for byte, by name: tokenizers,
// generation config, code. config.json is not among them. Not to be changed.
func (c *Checkpoint) SideFiles() []SideFile { return c.side }

// Unseen says which changes of the source reads would not notice, the reason, and the way out: one
// line for all files that have these in common.
func (c *Checkpoint) Unseen() []string {
	first := map[string]string{} // name of a file, by what is not seen of it
	count := map[string]int{}
	for _, f := range c.files {
		what := f.proof.unseen()
		if what != "" && count[what] == 0 {
			first[what] = f.name
		}
		count[what]++
	}
	var lines []string
	for _, what := range slices.Sorted(maps.Keys(first)) {
		lines = append(lines, first[what]+andMore(count[what]-1)+": "+what)
	}
	return lines
}

// open does what Open says.
func (c *Checkpoint) open(source string, o OpenOptions) error {
	path, single, err := findSource(source)
	if err != nil {
		return err
	}
	d, err := openFolder(path, o)
	if err != nil {
		return err
	}
	defer d.close()
	if single != "" {
		return c.openSingle(d, single)
	}
	return c.openFolder(d)
}

// openSingle opens one shard, and the config.json beside it if there is one.
func (c *Checkpoint) openSingle(d *folder, name string) error {
	if d.has(configName) {
		if err := c.openConfig(d); err != nil {
			return err
		}
	}
	return c.openShards(d, []string{name}, nil)
}

// openFolder opens all of a checkpoint's folder.
func (c *Checkpoint) openFolder(d *folder) error {
	if !d.has(configName) {
		return d.incomplete(fmt.Errorf("%s: missing: not a checkpoint's folder", configName))
	}
	if err := c.openConfig(d); err != nil {
		return err
	}
	index, err := openIndex(d)
	if err != nil {
		return err
	}
	shards, err := d.shards(index)
	if err != nil {
		return err
	}
	if err := c.openShards(d, shards, index); err != nil {
		return err
	}
	return c.openSide(d)
}

// openConfig reads config.json.
func (c *Checkpoint) openConfig(d *folder) error {
	raw, err := d.read(configName, maxConfig)
	if err != nil {
		return err
	}
	if c.Config, err = parseConfig(raw); err != nil {
		return fmt.Errorf("%s: %w", configName, err)
	}
	return nil
}

// openIndex reads the index; nil if there is none.
func openIndex(d *folder) (*safetensors.Index, error) {
	if !d.has(indexName) {
		return nil, nil
	}
	raw, err := d.read(indexName, maxIndex)
	if err != nil {
		return nil, err
	}
	index, err := safetensors.ParseIndex(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", indexName, err)
	}
	return index, nil
}

// openShards opens shards and reads their headers. All are opened before the first is
// read, so that a slow disk can fetch the headers side by side.
func (c *Checkpoint) openShards(d *folder, names []string, index *safetensors.Index) error {
	c.shards = names
	c.byKey = map[string]*Stored{}
	if index != nil {
		c.byKey = make(map[string]*Stored, len(index.WeightMap))
	}
	var files []*sourceFile
	for _, name := range names {
		f, err := d.open(name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		c.files = append(c.files, f)
		files = append(files, f)
		f.Advise(0, headerAhead, false)
	}
	for _, f := range files {
		if err := c.readShard(f, index, d.logger); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return c.checkIndex(index)
}

// readShard adds the tensors of one shard.
func (c *Checkpoint) readShard(f *sourceFile, index *safetensors.Index, log *slog.Logger) error {
	h, err := safetensors.ReadHeader(f, f.Size())
	if err != nil {
		return err
	}
	if len(c.tensors)+len(h.Tensors) > maxTensors {
		return fmt.Errorf("more than %d tensors up to here: too many for a checkpoint", maxTensors)
	}
	stored := make([]Stored, len(h.Tensors))
	c.tensors = slices.Grow(c.tensors, len(stored))
	for i, t := range h.Tensors {
		stored[i] = Stored{Shard: f.name, Source: expr.Source{
			Key: t.Name, File: f, Offset: h.DataOffset + t.Begin, DType: t.DType, Shape: t.Shape,
		}}
		if err := c.add(&stored[i], index, log); err != nil {
			return fmt.Errorf("tensor %q: %w", t.Name, err)
		}
	}
	return nil
}

// add checks one tensor's key and takes it in.
func (c *Checkpoint) add(t *Stored, index *safetensors.Index, log *slog.Logger) error {
	if strings.ContainsFunc(t.Key, unicode.IsControl) {
		return errors.New("a control character in its name")
	}
	c.byKey[t.Key] = t
	if len(c.byKey) == len(c.tensors) {
		i := slices.IndexFunc(c.tensors, func(other *Stored) bool { return other.Key == t.Key })
		return fmt.Errorf("it is in %s too: remove one of them", c.tensors[i].Shard)
	}
	c.tensors = append(c.tensors, t)
	if index == nil {
		return nil
	}
	switch want, ok := index.WeightMap[t.Key]; {
	case !ok:
		c.unlisted++
		if c.unlisted == 1 { // one line, however many there are
			log.Warn("a tensor is not in the index", "file", t.Shard, "key", t.Key)
		}
	case want != t.Shard:
		return fmt.Errorf("%s says that it is in %s", indexName, want)
	}
	return nil
}

// checkIndex looks for keys of the index that no shard has.
func (c *Checkpoint) checkIndex(index *safetensors.Index) error {
	if index == nil || len(c.tensors)-c.unlisted == len(index.WeightMap) {
		return nil
	}
	var missing []string
	for key := range index.WeightMap {
		if c.byKey[key] == nil {
			missing = append(missing, key)
		}
	}
	first := slices.Min(missing)
	return fmt.Errorf("%s: tensor %.100q should be in %s, which does not hold it%s", indexName, first, index.WeightMap[first], andMore(len(missing)-1))
}

// andMore says how many others there are.
func andMore(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf(" (and %d more)", n)
}
