package adapter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/dequantfs/dequantfs/adapter/expr"
	"github.com/dequantfs/dequantfs/adapter/safetensors"
	"github.com/dequantfs/dequantfs/adapter/source"
)

const (
	configName = "config.json"
	shardEnd   = ".safetensors"

	maxConfig = 16 << 20 // bytes of config.json
	maxIndex  = 64 << 20 // bytes of the index
	// maxTensors limits all shards together. The largest published checkpoints have a third of it.
	maxTensors = 1 << 20
)

// Checkpoint is an opened source: every shard is open and every header checked. It does not change
// after Open and is safe for concurrent use. Its files stay readable until Close, even if they are
// renamed or removed.
type Checkpoint struct {
	Path   string  // the source as given to Open, for messages
	Config *Config // never nil; empty for a single file without a config.json beside it

	// quantizeFiles maps the name of a file to the JSON object that describes the quantization,
	// checked like config.json. NaN and Infinity are still in it.
	quantizeFiles map[string][]byte

	shards  []string
	tensors []*Stored
	byKey   map[string]*Stored
	index   string      // name of the index
	absent  []absentKey // sorted by key

	mistral bool   // in Mistral's own layout
	params  []byte // params.json if it speaks of the quantization; nil otherwise

	// kernelOrder has the shards whose metadata says that their exponents are in kernel order.
	kernelOrder map[string]bool

	// small has the bytes of small tensors that a plan needs, such as the shapes of packs.
	small map[*Stored][]byte
	lists map[*Stored]groupList

	// tensorParallel is tp_size of the index: the number of shards of each fused matrix. It is 0 if
	// the index does not give it.
	tensorParallel int

	side    []SideFile
	pairing pairing
	store   source.Store
	pace    pace
	single  bool          // one file was asked for, which need not be the whole model
	files   []source.File // that are open
	read    []source.File // that were read as it was opened, and are closed
}

// Stored is a tensor of the source and the shard that holds it.
type Stored struct {
	expr.Source
	Shard string
	at    int32 // position in Checkpoint.Tensors, set when weights are paired with their scales
}

// OpenOptions change how a source is opened. The zero value suits most programs.
type OpenOptions struct {
	Logger      *slog.Logger // receives warnings; nil discards them
	FollowLinks bool         // follow symlinks out of the source's root

	// Single is the name of one shard of the store. Then only that shard is opened. Only OpenStore
	// uses it.
	Single string

	// Fits is called before that many bytes of JSON are read. An error refuses the source. nil
	// accepts every size within the limits of the package.
	Fits func(bytes int64) error
}

// Open opens a source. It reads no tensor data except descriptions of packs that are stored as
// tensors. The source is a folder with config.json and shards, one .safetensors file, or a Hub id
// in the local Hugging Face cache. A Hub id is "org/name" or "org/name@revision". A folder in
// Mistral's own layout has params.json and consolidated*.safetensors.
//
// Open checks the header of every shard and compares it with the index if there is one. The shards
// are chosen as transformers chooses them (shards.go). A key of the index that no shard has is an
// error only of a plan that needs it.
//
// Symlinks are followed inside the source's folder. In a snapshot of the Hugging Face cache they
// are followed inside the folder of its model. Other links are refused unless o.FollowLinks is set.
// Names are resolved once; later reads use the open files.
//
// Errors name file and tensor.
func Open(ctx context.Context, name string, o OpenOptions) (*Checkpoint, error) {
	store, single, err := openLocal(name, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return openStore(ctx, store, name, single, o)
}

// OpenStore opens the checkpoint in the folder of a store, as Open does. It takes the store over:
// Close closes it.
func OpenStore(ctx context.Context, s source.Store, o OpenOptions) (*Checkpoint, error) {
	return openStore(ctx, s, s.Name(), o.Single, o)
}

// openLocal opens the store that a name means, and says which file of it is meant, if one is.
func openLocal(name string, o OpenOptions) (s source.Store, single string, err error) {
	if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() {
		if err := notAShard(name); err != nil {
			return nil, "", err
		}
	}
	return source.Open(name, source.Options{FollowLinks: o.FollowLinks})
}

// notAShard refuses a file that is not in the format of shards, by its name.
func notAShard(name string) error {
	if strings.HasSuffix(name, shardEnd) {
		return nil
	}
	for _, o := range otherFormats {
		if endsWith(o.end)(name) {
			return fmt.Errorf("%s: %s", o.is, o.way)
		}
	}
	return fmt.Errorf("neither a folder nor a %s file: give the folder with %s",
		shardEnd, configName)
}

// openStore opens a checkpoint, or a single file of a store.
func openStore(ctx context.Context, s source.Store, name, single string,
	o OpenOptions) (*Checkpoint, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Checkpoint{Path: name, Config: &Config{}, store: s, pace: paceOf(s)}
	if err := c.open(ctx, single, o); err != nil {
		c.discard(ctx)
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

// discard closes what was opened before an error, which says more than another one. If the context
// has ended, a read may be left that never ends, so discard does not wait for it.
func (c *Checkpoint) discard(ctx context.Context) {
	if ctx.Err() != nil {
		go c.Close()
		return
	}
	_ = c.Close()
}

// Close closes every file after waiting for running reads. The store is closed first, so that its
// files need not look at who may read them.
func (c *Checkpoint) Close() error {
	errs := []error{c.store.Close()}
	for _, f := range c.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// Tensor returns the stored tensor of a key.
func (c *Checkpoint) Tensor(key string) (*Stored, bool) {
	t, ok := c.byKey[key]
	return t, ok
}

// Tensors returns all stored tensors, by shard and then in data order. The caller must not change
// the slice.
func (c *Checkpoint) Tensors() []*Stored { return c.tensors }

// Absent returns the keys that the index names and no shard has, sorted. A plan must exclude them.
func (c *Checkpoint) Absent() []string {
	keys := make([]string, len(c.absent))
	for i, a := range c.absent {
		keys[i] = a.key
	}
	return keys
}

// Folder returns the folder that was opened. For a repository of the Hub it is the snapshot, so it
// means the same files after the name has come to mean others.
func (c *Checkpoint) Folder() string { return c.store.Name() }

// Location returns the folder or the single file that was opened.
func (c *Checkpoint) Location() string {
	switch {
	case !c.single:
		return c.Folder()
	case isNetworked(c.store):
		return strings.TrimSuffix(c.Folder(), "/") + "/" + c.shards[0]
	}
	return filepath.Join(c.Folder(), filepath.FromSlash(c.shards[0]))
}

// Shards returns the names of the shards in natural order. The caller must not change the slice.
func (c *Checkpoint) Shards() []string { return c.shards }

// SideFiles returns the files that a view passes through byte for byte, sorted by name. These are
// tokenizers, generation config and code, also in small subfolders, but not config.json. The caller
// must not change the slice.
func (c *Checkpoint) SideFiles() []SideFile { return c.side }

// Unseen lists the changes of the source that reads would not notice. Each line gives the files,
// the reason and the remedy.
func (c *Checkpoint) Unseen() []string {
	first := map[string]string{} // name of a file, by the change that would not be noticed
	count := map[string]int{}
	for _, f := range c.files {
		what := f.Unseen()
		if what != "" && count[what] == 0 {
			first[what] = f.Name()
		}
		count[what]++
	}
	var lines []string
	for _, what := range slices.Sorted(maps.Keys(first)) {
		lines = append(lines, first[what]+andMore(count[what]-1)+": "+what)
	}
	return lines
}

// open does the work of Open.
func (c *Checkpoint) open(ctx context.Context, single string, o OpenOptions) error {
	d, err := newFolder(ctx, c.store, o)
	if err != nil {
		return err
	}
	defer func() {
		c.read = d.read
		d.closeBegun()
	}()
	if single != "" {
		return c.openSingle(d, single)
	}
	return c.openFolder(d)
}

// openSingle opens one shard, and the config.json or params.json beside it if there is one.
func (c *Checkpoint) openSingle(d *folder, name string) error {
	c.single = true
	describe := c.openQuantize
	switch {
	case d.has(configName):
		describe = c.openConfig
	case d.has(paramsName) && strings.HasPrefix(name, mistralStem):
		describe = c.openParams
	}
	if err := describe(d); err != nil {
		return err
	}
	return c.openShards(d, &selection{shards: []string{name}})
}

// openFolder opens all files of a checkpoint's folder.
func (c *Checkpoint) openFolder(d *folder) error {
	switch {
	case d.isMistral():
		return c.openMistral(d)
	case !d.has(configName):
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
	return c.openSide(d)
}

// openConfig reads config.json and the files beside it that describe the quantization.
func (c *Checkpoint) openConfig(d *folder) error {
	config, err := d.config(configName)
	if err != nil {
		return err
	}
	c.Config = config
	return c.openQuantize(d)
}

// quantizeNames are the files in which ModelOpt, AutoGPTQ and AutoAWQ describe a quantization.
var quantizeNames = []string{"hf_quant_config.json", "quantize_config.json", "quant_config.json"}

// openQuantize reads the files that describe the quantization, if there are any.
func (c *Checkpoint) openQuantize(d *folder) error {
	for _, name := range quantizeNames {
		if !d.has(name) {
			continue
		}
		config, err := d.config(name)
		if err != nil {
			return err
		}
		c.describe(name, config.Raw)
	}
	return nil
}

// describe keeps the description of a quantization that a file has.
func (c *Checkpoint) describe(file string, raw []byte) {
	if c.quantizeFiles == nil {
		c.quantizeFiles = map[string][]byte{}
	}
	c.quantizeFiles[file] = raw
}

// config reads a file that holds a JSON object.
func (d *folder) config(name string) (*Config, error) {
	raw, err := d.readFile(name, maxConfig)
	if err != nil {
		return nil, err
	}
	config, err := parseConfig(raw)
	if err = d.unlikeJSON(raw, err); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return config, nil
}

// openShards opens the shards and reads their headers. All shards are opened before the first
// header is read.
func (c *Checkpoint) openShards(d *folder, model *selection) error {
	if err := d.finished(model.shards); err != nil {
		return err
	}
	r := shardReader{c: c, d: d, model: model, cuts: cuts{}}
	c.tensorParallel = tensorParallelOf(model.index)
	c.shards = model.shards
	c.byKey = map[string]*Stored{}
	if model.index != nil {
		c.byKey = make(map[string]*Stored, len(model.index.WeightMap))
	}
	files, err := d.openAll(model.shards)
	c.files = append(c.files, files...)
	if err != nil {
		return err
	}
	r.files = files
	if err := r.readAll(); err != nil {
		return err
	}
	if err := r.finish(); err != nil {
		return err
	}
	if err := c.readSmall(d.ctx, knownFormats); err != nil {
		return err
	}
	r.cuts.cut()
	return nil
}

// shardReader collects the tensors of the shards and compares them with the index.
type shardReader struct {
	c     *Checkpoint
	d     *folder
	model *selection
	files []source.File

	cuts     cuts
	pieces   pieces    // of the current shard
	unlisted []*Stored // tensors that the index does not list
	copies   []*Stored // tensors that the index lists in another shard
}

// readAll adds the tensors of all shards, in order, while later headers are read. After an error it
// ends the reads that are not needed any more.
func (r *shardReader) readAll() error {
	ctx, cancel := context.WithCancel(r.d.ctx)
	defer cancel()
	return eachHead(ctx, r.files, r.d.pace.heads, func(head *shardHead) error {
		err := r.read(head)
		if err != nil {
			cancel()
			return fmt.Errorf("%s: %w", head.Name(), err)
		}
		return nil
	})
}

// read adds the tensors of one shard.
func (r *shardReader) read(head *shardHead) error {
	f := head.File
	h, err := safetensors.ReadHeader(head, f.Size())
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
		r.c.kernelOrder[f.Name()] = true
	}
	r.cuts.add(f, h)
	stored := make([]Stored, len(h.Tensors))
	r.c.tensors = slices.Grow(r.c.tensors, len(stored))
	for i, t := range h.Tensors {
		stored[i] = Stored{Shard: f.Name(), Source: expr.Source{
			Key: t.Name, File: f, Offset: h.DataOffset + t.Begin, DType: t.DType, Shape: t.Shape,
		}}
		if err := r.add(&stored[i]); err != nil {
			return fmt.Errorf("tensor %q: %w", t.Name, err)
		}
	}
	return nil
}

// add checks the key of a tensor and adds the tensor. If the index lists the key in another shard,
// the tensor is only a copy and set aside.
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

// twice refuses a tensor that is in two shards, because no index says which one counts.
func (r *shardReader) twice(t *Stored) error {
	i := slices.IndexFunc(r.c.tensors, func(other *Stored) bool { return other.Key == t.Key })
	return fmt.Errorf("it is also in %s, and no index says which one counts: consolidate the "+
		"shards first if they hold pieces of it; otherwise give one file as SOURCE, or a folder "+
		"with the shards of one model", r.c.tensors[i].Shard)
}

// finish compares the tensors found with the index.
func (r *shardReader) finish() error {
	index := r.model.index
	if index == nil {
		return nil
	}
	for _, t := range r.copies {
		if r.c.byKey[t.Key] == nil {
			return fmt.Errorf("%s: tensor %q: %s lists it in %s, which does not have it",
				t.Shard, t.Key, r.model.name, index.WeightMap[t.Key])
		}
	}
	if len(r.copies) > 0 {
		t := r.copies[0]
		r.d.logger.Warn("a tensor is in two shards: that of the index is shown", "key", t.Key,
			"shown", index.WeightMap[t.Key], "left", t.Shard+andMore(len(r.copies)-1))
	}
	if len(r.unlisted) > 0 { // one line for all of them
		t := r.unlisted[0]
		r.d.logger.Warn("a tensor is not in the index",
			"file", t.Shard, "key", t.Key+andMore(len(r.unlisted)-1))
	}
	r.c.findAbsent(r.model, len(r.unlisted))
	return nil
}

// findAbsent records the keys of the index that no shard has.
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

// checkAbsent refuses keys that the index names and no shard has, unless the view excludes them.
func (p *planner) checkAbsent() error {
	var wanted []absentKey
	for _, a := range p.c.absent {
		switch {
		case p.leftOut(a.key) != "":
		case p.dropsMTP(a.key, p.family.locate(a.key)):
		default:
			wanted = append(wanted, a)
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	first := wanted[0]
	return fmt.Errorf("%s: tensor %.100q should be in %s, but no shard holds it%s: %w",
		p.c.index, first.key, first.shard, andMore(len(wanted)-1), ErrAbsentTensor)
}

// andMore counts the others in a message.
func andMore(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf(" (and %d more)", n)
}
