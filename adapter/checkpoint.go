package adapter

import (
	"cmp"
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

	// quantizeFiles holds those files of quantizeNames that the source has, by name: JSON
	// objects, checked like config.json. Numbers that JSON lacks are still in them.
	quantizeFiles map[string][]byte

	shards  []string
	tensors []*Stored
	byKey   map[string]*Stored
	index   string      // name of the index
	absent  []absentKey // by key

	kernelOrder map[string]bool // shards whose metadata says that exponents in them are in the order of a kernel

	tensorParallel int // tp_size of the index: in how many shards fused matrices were saved; 0: it does not say

	side    []SideFile
	pairing pairing
	files   []*sourceFile
	folder  string  // where it lies, without symlinks
	read    []grant // of the files that were read as it was opened, and are not open any more
}

// Stored is a tensor of the source with the shard that it lies in.
type Stored struct {
	expr.Source
	Shard string
	at    int32 // position in Checkpoint.Tensors, once weights are paired with their scales
}

// OpenOptions change how a source is opened. The zero value is right for most.
type OpenOptions struct {
	Logger      *slog.Logger // of what is odd, but no reason to fail; nil: nowhere
	FollowLinks bool         // follow symlinks out of the source's root

	Fits func(bytes int64) error // asked before so many bytes of JSON are read; nil: all that is not too much fits
}

// Open opens a directory with config.json and shards, one .safetensors file, or a Hub
// id ("org/name", "org/name@revision") in the local Hugging Face cache. Every shard is
// opened, its header checked, and compared with the index, if there is one. No tensor
// data is read. Errors name file and tensor. Which files are the model is decided as
// transformers does (shards.go). Keys that the index names and no shard has are refused
// when a view is planned that wants them.
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

// Absent gives the keys that the index names and no shard has, sorted. A view that does not
// leave them out cannot be planned.
func (c *Checkpoint) Absent() []string {
	keys := make([]string, len(c.absent))
	for i, a := range c.absent {
		keys[i] = a.key
	}
	return keys
}

// Shards names the shard files in natural order. Not to be changed.
func (c *Checkpoint) Shards() []string { return c.shards }

// SideFiles are the files to pass through byte for byte, by name: tokenizers,
// generation config, code, also those of small subfolders. config.json is not among them.
// Not to be changed.
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
	c.folder = d.path
	defer func() { c.read = d.grants }()
	if single != "" {
		return c.openSingle(d, single)
	}
	return c.openFolder(d)
}

// openSingle opens one shard, and the config.json beside it if there is one.
func (c *Checkpoint) openSingle(d *folder, name string) error {
	describe := c.openQuantize
	if d.has(configName) {
		describe = c.openConfig
	}
	if err := describe(d); err != nil {
		return err
	}
	return c.openShards(d, &selection{shards: []string{name}})
}

// openFolder opens all of a checkpoint's folder.
func (c *Checkpoint) openFolder(d *folder) error {
	if !d.has(configName) {
		return d.noConfig()
	}
	if err := c.openConfig(d); err != nil {
		return err
	}
	model, err := d.selectShards(c.Config)
	if err != nil {
		return err
	}
	if err := c.openShards(d, model); err != nil {
		return err
	}
	c.openSide(d)
	return nil
}

// openConfig reads config.json and the files that describe the quantization beside it.
func (c *Checkpoint) openConfig(d *folder) error {
	config, err := d.config(configName)
	if err != nil {
		return err
	}
	c.Config = config
	return c.openQuantize(d)
}

// quantizeNames are the files in which ModelOpt and AutoGPTQ describe a quantization. They
// are not true of a view, so no view shows them.
var quantizeNames = []string{"hf_quant_config.json", "quantize_config.json"}

// openQuantize reads the files that describe the quantization, where there are any.
func (c *Checkpoint) openQuantize(d *folder) error {
	for _, name := range quantizeNames {
		if !d.has(name) {
			continue
		}
		config, err := d.config(name)
		if err != nil {
			return err
		}
		if c.quantizeFiles == nil {
			c.quantizeFiles = map[string][]byte{}
		}
		c.quantizeFiles[name] = config.Raw
	}
	return nil
}

// config reads a file that holds a JSON object.
func (d *folder) config(name string) (*Config, error) {
	raw, err := d.read(name, maxConfig)
	if err != nil {
		return nil, err
	}
	config, err := parseConfig(raw)
	if err = d.unlikeJSON(raw, err); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return config, nil
}

// openShards opens shards and reads their headers. All are opened before the first is
// read, so that a slow disk can fetch the headers side by side.
func (c *Checkpoint) openShards(d *folder, model *selection) error {
	if err := d.finished(model.shards); err != nil {
		return err
	}
	r := shardReader{c: c, d: d, model: model}
	c.tensorParallel = tensorParallelOf(model.index)
	c.shards = model.shards
	c.byKey = map[string]*Stored{}
	if model.index != nil {
		c.byKey = make(map[string]*Stored, len(model.index.WeightMap))
	}
	for _, name := range model.shards {
		f, err := d.open(name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		c.files = append(c.files, f)
		r.files = append(r.files, f)
		f.Advise(0, headerAhead, false)
	}
	for _, f := range r.files {
		if err := r.read(f); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return r.finish()
}

// shardReader takes in the tensors of the shards, and compares them with the index.
type shardReader struct {
	c     *Checkpoint
	d     *folder
	model *selection
	files []*sourceFile

	pieces   pieces    // of the shard at hand
	unlisted []*Stored // those that the index does not list
	copies   []*Stored // those that the index lists in another shard
}

// read adds the tensors of one shard.
func (r *shardReader) read(f *sourceFile) error {
	h, err := safetensors.ReadHeader(f, f.Size())
	if err != nil {
		return r.d.unlikeShard(f, r.files, err)
	}
	if len(r.c.tensors)+len(r.copies)+len(h.Tensors) > maxTensors {
		return fmt.Errorf("more than %d tensors up to here: too many for a checkpoint", maxTensors)
	}
	if r.pieces, err = piecesOf(h); err != nil {
		return err
	}
	if inKernelOrder(h) {
		if r.c.kernelOrder == nil {
			r.c.kernelOrder = map[string]bool{}
		}
		r.c.kernelOrder[f.name] = true
	}
	stored := make([]Stored, len(h.Tensors))
	r.c.tensors = slices.Grow(r.c.tensors, len(stored))
	for i, t := range h.Tensors {
		stored[i] = Stored{Shard: f.name, Source: expr.Source{
			Key: t.Name, File: f, Offset: h.DataOffset + t.Begin, DType: t.DType, Shape: t.Shape,
		}}
		if err := r.add(&stored[i]); err != nil {
			return fmt.Errorf("tensor %q: %w", t.Name, err)
		}
	}
	return nil
}

// add checks one tensor's key and takes it in. The index says which of several copies is
// the model's: the others are set aside.
func (r *shardReader) add(t *Stored) error {
	if strings.ContainsFunc(t.Key, unicode.IsControl) {
		return errors.New("a control character in its name")
	}
	if err := r.pieces.check(t.Key); err != nil {
		return err
	}
	if r.model.index != nil {
		switch want, listed := r.model.index.WeightMap[t.Key]; {
		case !listed:
			r.unlisted = append(r.unlisted, t)
		case want != t.Shard:
			r.copies = append(r.copies, t)
			return nil
		}
	}
	r.c.byKey[t.Key] = t
	if len(r.c.byKey) == len(r.c.tensors) {
		return r.twice(t)
	}
	r.c.tensors = append(r.c.tensors, t)
	return nil
}

// twice refuses a tensor that is in two shards, where no index says which one counts.
func (r *shardReader) twice(t *Stored) error {
	i := slices.IndexFunc(r.c.tensors, func(other *Stored) bool { return other.Key == t.Key })
	return fmt.Errorf("it is in %s too, and no index says which one counts: if they are pieces of it, consolidate them; "+
		"else give one file as SOURCE, or the shards of one model a folder of their own", r.c.tensors[i].Shard)
}

// finish compares what was found with the index.
func (r *shardReader) finish() error {
	index := r.model.index
	if index == nil {
		return nil
	}
	for _, t := range r.copies {
		if r.c.byKey[t.Key] == nil {
			return fmt.Errorf("%s: tensor %q: %s says that it is in %s", t.Shard, t.Key, r.model.name, index.WeightMap[t.Key])
		}
	}
	if len(r.copies) > 0 {
		t := r.copies[0]
		r.d.logger.Warn("a tensor is in two shards: that of the index is shown", "key", t.Key, "shown", index.WeightMap[t.Key],
			"left", t.Shard+andMore(len(r.copies)-1))
	}
	if len(r.unlisted) > 0 { // one line, however many there are
		t := r.unlisted[0]
		r.d.logger.Warn("a tensor is not in the index", "file", t.Shard, "key", t.Key+andMore(len(r.unlisted)-1))
	}
	r.c.findAbsent(r.model, len(r.unlisted))
	return nil
}

// findAbsent notes the keys of the index that no shard has.
func (c *Checkpoint) findAbsent(model *selection, unlisted int) {
	if len(c.tensors)-unlisted == len(model.index.WeightMap) {
		return
	}
	for key, shard := range model.index.WeightMap {
		if c.byKey[key] == nil {
			c.absent = append(c.absent, absentKey{key, shard})
		}
	}
	slices.SortFunc(c.absent, func(a, b absentKey) int { return cmp.Compare(a.key, b.key) })
	c.index = model.name
}

// absentKey is a key that the index names and no shard has.
type absentKey struct{ key, shard string }

// checkAbsent refuses keys that the index names and no shard has, unless the view leaves
// them out anyway: then nothing that is wanted is missing.
func (p *planner) checkAbsent() error {
	var wanted []absentKey
	for _, a := range p.c.absent {
		switch {
		case p.leftOut(a.key) != "":
		case p.dropsMTP() && p.isMTP(a.key, locate(a.key)):
		default:
			wanted = append(wanted, a)
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	first := wanted[0]
	return fmt.Errorf("%s: tensor %.100q should be in %s, but no shard holds it%s: index and shards disagree",
		p.c.index, first.key, first.shard, andMore(len(wanted)-1))
}

// andMore says how many others there are.
func andMore(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf(" (and %d more)", n)
}
