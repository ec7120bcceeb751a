// Package hostile writes checkpoints that were made to do harm, or broken by accident.
//
// Each [Source] is one defect in an otherwise sound, tiny checkpoint of two shards with
// an index. [All] lists them; a test writes each into an empty folder, opens and plans it,
// and compares the error with the golden file errors.txt beside this file, which
// `go test ./adapter -run Hostile -update` writes anew. Some sources are odd but legal;
// their line in the golden file is "opens".
//
// Where they come from: the bad cases of the safetensors project's own tests, the
// structure of the files (each field wrong in each way that its type allows, truncation at
// each border), attacks by archives and model files that are known (names that leave the
// folder, links, special files, wrong sizes, nesting), and the numbers in config.json and in
// keys that a planner might trust.
//
// The files of a hundred megabytes that some cases need are written when they are asked
// for and never stored.
package hostile

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Source is one malformed checkpoint.
type Source struct {
	Name string // short, fit for a folder's name
	Big  bool   // takes a hundred megabytes, or a second
	do   func(f *folder)
}

// Write writes the source into dir, which is made if it is missing.
func (s Source) Write(dir string) error {
	f := &folder{dir: dir, err: os.MkdirAll(dir, 0o755)}
	f.write("config.json", []byte(`{"model_type":"deepseek_v3","num_hidden_layers":1,"n_routed_experts":1}`))
	f.write(Shard1, file(header(entry(weight, "F8_E4M3", "[2,2]", 0, 4)), 4))
	f.write(Shard2,
		file(header(entry(grid, "F32", "[1,1]", 0, 4), entry(norm, "BF16", "[2]", 4, 8)), 8))
	f.index(map[string]string{weight: Shard1, grid: Shard2, norm: Shard2})
	s.do(f)
	return f.err
}

// All lists the sources, those of one kind beside each other.
func All() []Source {
	var all []Source
	for _, kind := range [][]Source{lengths(), headers(), entries(), layouts(), indexes(), files(),
		configs(), plans()} {
		all = append(all, kind...)
	}
	return all
}

// The sound checkpoint.
const (
	Shard1 = "model-00001-of-00002.safetensors"
	Shard2 = "model-00002-of-00002.safetensors"
	index  = "model.safetensors.index.json"

	weight = "model.layers.0.self_attn.o_proj.weight"
	grid   = weight + "_scale_inv"
	norm   = "model.norm.weight"
)

// folder writes files and keeps the first error.
type folder struct {
	dir string
	err error
}

func (f *folder) path(name string) string { return filepath.Join(f.dir, name) }

func (f *folder) try(do func() error) {
	if f.err == nil {
		f.err = do()
	}
}

func (f *folder) write(name string, data []byte) {
	f.try(func() error { return os.WriteFile(f.path(name), data, 0o644) })
}

// sparse writes data and makes the file size bytes long.
func (f *folder) sparse(name string, data []byte, size int64) {
	f.write(name, data)
	f.try(func() error { return os.Truncate(f.path(name), size) })
}

// stream writes a file of size bytes without holding it: head, as many pieces as fit, and
// tail, with spaces between them.
func (f *folder) stream(name string, size int, head string, piece func(i int) string, tail string) {
	f.try(func() error {
		file, err := os.Create(f.path(name))
		if err != nil {
			return err
		}
		defer file.Close()
		w := bufio.NewWriter(file)
		left := size - len(tail)
		for i, text := 0, head; len(text) <= left; i++ {
			left -= len(text)
			_, _ = w.WriteString(text) // Flush tells of a failure
			text = piece(i)
		}
		_, _ = w.WriteString(strings.Repeat(" ", left) + tail)
		return w.Flush()
	})
}

func (f *folder) remove(names ...string) {
	for _, name := range names {
		f.try(func() error { return os.Remove(f.path(name)) })
	}
}

// link replaces a file by a symlink.
func (f *folder) link(target, name string) {
	f.try(func() error {
		_ = os.Remove(f.path(name)) // it need not be there
		return os.Symlink(target, f.path(name))
	})
}

func (f *folder) index(weights map[string]string) {
	b, err := json.Marshal(map[string]any{"metadata": map[string]any{}, "weight_map": weights})
	f.try(func() error { return err })
	f.write(index, b)
}

// only leaves one shard without an index, with these bytes.
func (f *folder) only(data []byte) {
	f.remove(index, Shard1, Shard2)
	f.write("model.safetensors", data)
}

// file is a header's JSON with its length in front and data zero bytes behind it.
func file(header string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, data)...)
}

// entry is one member of a header.
func entry(key, dtype, shape string, begin, end int) string {
	k, _ := json.Marshal(key) // a string cannot fail
	return fmt.Sprintf(`%s:{"dtype":%q,"shape":%s,"data_offsets":[%d,%d]}`, k, dtype, shape, begin,
		end)
}

func header(entries ...string) string { return "{" + strings.Join(entries, ",") + "}" }

// single is a source of one shard of these bytes.
func single(name string, data []byte) Source {
	return Source{Name: name, do: func(f *folder) { f.only(data) }}
}

// lengths are wrong values of the first eight bytes, and truncation.
func lengths() []Source {
	number := func(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }
	sound := file(header(entry("a", "U8", "[4]", 0, 4), entry("b", "U8", "[4]", 4, 8)), 8)
	data := len(sound) - 8
	return []Source{
		single("length-nothing", nil),
		single("length-seven-bytes", make([]byte, 7)),
		single("length-zero", make([]byte, 8)),
		single("length-zero-with-data", make([]byte, 800)),
		single("length-beyond-the-file", append(number(1000), "{}"...)),
		single("length-over-the-limit", append(number(100_000_001), "{}"...)),
		single("length-sign-bit", append(number(1<<63), "{}"...)),
		single("length-all-ones", append(number(1<<64-1), "{}"...)),
		single("length-makes-the-sum-overflow", append(number(1<<64-8), "{}"...)),
		single("length-of-something-else", []byte("PK\x03\x04 this is an archive")),
		single("truncated-in-the-length", sound[:5]),
		single("truncated-behind-the-length", sound[:8]),
		single("truncated-in-the-header", sound[:40]),
		single("truncated-behind-the-header", sound[:data]),
		single("truncated-in-a-tensor", sound[:data+2]),
		single("truncated-between-tensors", sound[:data+4]),
		single("truncated-by-a-byte", sound[:data+7]),
		single("longer-by-a-byte", append(bytes.Clone(sound), 0)),
	}
}

// mostHeader is the largest header that the format allows.
const mostHeader = 100_000_000

// bigHeader is a header that begins with a text, repeats another, and ends with a third one.
func bigHeader(name, head string, middle func(i int) string, tail string) Source {
	return Source{Name: name, Big: true, do: func(f *folder) {
		f.only(nil)
		f.stream("model.safetensors", 8+mostHeader,
			string(binary.LittleEndian.AppendUint64(nil, mostHeader))+head, middle, tail)
	}}
}

// headers are texts that are not a header.
func headers() []Source {
	big := bigHeader
	always := func(s string) func(int) string {
		s = strings.Repeat(s, 1000)
		return func(int) string { return s }
	}
	nested := func(depth int) string {
		return `{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":` +
			strings.Repeat("[", depth) + strings.Repeat("]", depth) + "}}"
	}
	return []Source{
		single("header-is-a-list", file(`[]`, 0)),
		single("header-is-null", file(`null`, 0)),
		single("header-begins-with-spaces", file(`  {}`, 0)),
		single("header-begins-with-a-byte-order-mark", file("\ufeff{}", 0)),
		single("header-ends-early", file(`{"a":{"dtype":"U8",`, 0)),
		single("header-goes-on", file(`{}{}`, 0)),
		single("header-ends-in-zero-bytes", file("{}\x00\x00", 0)),
		single("header-is-not-utf-8", file("{\"\xc3\x28\":{}}", 0)),
		single("header-has-overlong-utf-8", file("{\"\xc0\x80\":{}}", 0)),
		single("header-has-a-bare-control-character", file("{\"a\x01\":{}}", 0)),
		single("header-has-half-a-pair", file(`{"\ud800":{}}`, 0)),
		single("header-has-not-a-number",
			file(`{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,0]}}`, 0)),
		single("header-has-a-comma-too-many",
			file(`{"a":{"dtype":"U8","shape":[0,],"data_offsets":[0,0]}}`, 0)),
		single("header-nests-deep", file(nested(100_000), 0)),
		single("header-opens-without-end", file(strings.Repeat(`{"a":`, 100_000), 0)),
		single("header-without-tensors", file(`{}`, 0)),
		big("header-of-zero-bytes", "", always("\x00"), ""),
		big("header-of-spaces", "{}", always(" "), ""),
		big("header-is-one-string", `{"`, always("a"), ""),
		big("header-is-one-dtype", `{"a":{"dtype":"`, always("a"), `"}}`),
		big("header-is-one-shape", `{"a":{"dtype":"U8","shape":[`, always("1,"), "1]}}"),
		big("header-of-metadata", `{"__metadata__":{"format":"pt"`, func(i int) string {
			return fmt.Sprintf(`,"%x":""`, i)
		}, "}}"),
		big("header-of-two-million-tensors", `{"__metadata__":{}`, func(i int) string {
			return fmt.Sprintf(`,"%x":{"dtype":"U8","shape":[],"data_offsets":[0,1]}`, i)
		}, "}"),
	}
}

// entries are impossible tensors.
func entries() []Source {
	one := func(name, dtype, shape, offsets string, data int) Source {
		return single(name,
			file(fmt.Sprintf(`{"x":{"dtype":%q,"shape":%s,"data_offsets":%s}}`, dtype, shape,
				offsets), data))
	}
	empty := `{"dtype":"U8","shape":[0],"data_offsets":[0,0]}`
	named := func(name, key string) Source {
		return single(name, file(header(entry(key, "U8", "[0]", 0, 0)), 0))
	}
	return []Source{
		single("key-twice", file(`{"x":`+empty+`,"x":`+empty+`}`, 0)),
		single("key-twice-once-escaped", file(`{"x":`+empty+`,"\u0078":`+empty+`}`, 0)),
		named("key-empty", ""),
		named("key-with-a-zero-byte", "a\x00b"),
		named("key-with-a-line-break", "a\nb"),
		named("key-with-a-terminal-sequence", "a\x1b[2Jb"),
		named("key-with-a-one-byte-terminal-sequence", "a\u009b2Jb"),
		named("key-too-long", strings.Repeat("k", 5000)),
		named("key-is-a-path", "../../../etc/passwd"),
		named("key-is-absolute", "/etc/passwd"),
		single("metadata-holds-a-number", file(`{"__metadata__":{"format":1}}`, 0)),
		single("metadata-is-a-list", file(`{"__metadata__":[]}`, 0)),
		single("metadata-twice", file(`{"__metadata__":{},"__metadata__":{}}`, 0)),
		single("metadata-has-a-key-twice", file(`{"__metadata__":{"a":"b","a":"c"}}`, 0)),
		single("entry-is-a-list", file(`{"x":[]}`, 0)),
		single("entry-without-dtype", file(`{"x":{"shape":[0],"data_offsets":[0,0]}}`, 0)),
		single("entry-without-offsets", file(`{"x":{"dtype":"U8","shape":[0]}}`, 0)),
		single("entry-with-dtype-twice", file(`{"x":{"dtype":"U8","dtype":"I8","shape":[0],"data_offsets":[0,0]}}`, 0)),
		one("dtype-unknown", "F7", "[0]", "[0,0]", 0),
		one("dtype-empty", "", "[0]", "[0,0]", 0),
		one("dtype-in-lower-case", "bf16", "[0]", "[0,0]", 0),
		one("shape-is-negative", "U8", "[-1]", "[0,0]", 0),
		one("shape-is-a-fraction", "U8", "[1.5]", "[0,1]", 1),
		one("shape-is-a-string", "U8", `["1"]`, "[0,1]", 1),
		one("shape-beyond-64-bits", "U8", "[18446744073709551616]", "[0,0]", 0),
		one("shape-product-wraps-to-zero", "U8", "[4294967296,4294967296]", "[0,0]", 0),
		one("shape-bits-wrap-to-zero", "F64", "[1152921504606846976,4]", "[0,0]", 0),
		one("shape-wraps-before-a-zero", "U8", "[9223372036854775807,3,0]", "[0,0]", 0),
		one("shape-nearly-wraps-before-a-zero", "U8", "[9223372036854775807,2,0]", "[0,0]", 0),
		one("shape-of-a-thousand-dimensions", "U8", "["+strings.Repeat("1,", 999)+"1]", "[0,1]", 1),
		one("half-a-byte", "F4", "[1]", "[0,1]", 1),
	}
}

// layouts are tensors that do not fill the file.
func layouts() []Source {
	two := func(name string, a, b [2]int, data int) Source {
		return single(name,
			file(header(entry("a", "U8", "[4]", a[0], a[1]), entry("b", "U8", "[4]", b[0], b[1])),
				data))
	}
	one := func(name, shape, offsets string, data int) Source {
		return single(name,
			file(fmt.Sprintf(`{"a":{"dtype":"U8","shape":%s,"data_offsets":%s}}`, shape, offsets),
				data))
	}
	return []Source{
		two("hole-at-the-start", [2]int{1, 5}, [2]int{5, 9}, 9),
		two("hole-in-the-middle", [2]int{0, 4}, [2]int{5, 9}, 9),
		two("hole-at-the-end", [2]int{0, 4}, [2]int{4, 8}, 9),
		two("overlap-by-a-byte", [2]int{0, 4}, [2]int{3, 7}, 7),
		two("overlap-wholly", [2]int{0, 4}, [2]int{0, 4}, 4),
		one("offsets-turned-round", "[1]", "[1,0]", 1),
		one("offsets-of-another-size", "[1]", "[0,2]", 2),
		one("offsets-negative", "[1]", "[-1,0]", 1),
		one("offsets-beyond-64-bits", "[1]", "[18446744073709551615,18446744073709551616]", 1),
		one("offsets-at-the-largest-number", "[1]", "[9223372036854775806,9223372036854775807]", 1),
		one("offsets-of-a-petabyte", "[1125899906842624]", "[0,1125899906842624]", 1),
		one("offsets-of-one-number", "[1]", "[0]", 1),
		one("offsets-of-three-numbers", "[1]", "[0,1,1]", 1),
		one("offsets-with-a-leading-zero", "[1]", "[00,1]", 1),
	}
}

// indexes are indexes that disagree with the shards.
func indexes() []Source {
	text := func(name, text string) Source {
		return Source{Name: name, do: func(f *folder) { f.write(index, []byte(text)) }}
	}
	where := func(name, shard string) Source {
		return Source{Name: name, do: func(f *folder) {
			f.index(map[string]string{weight: Shard1, grid: Shard2, norm: shard})
		}}
	}
	return []Source{
		text("index-is-a-list", `[]`),
		text("index-is-empty", ``),
		text("index-without-a-map", `{"metadata":{}}`),
		text("index-with-null-for-a-map", `{"weight_map":null}`),
		text("index-with-an-empty-map", `{"weight_map":{}}`),
		text("index-with-two-maps", `{"weight_map":{},"weight_map":{}}`),
		text("index-with-a-key-twice", `{"weight_map":{"a":"x.safetensors","a":"y.safetensors"}}`),
		text("index-with-a-number-for-a-file", `{"weight_map":{"a":1}}`),
		text("index-nests-deep", strings.Repeat(`{"a":`, 100_000)),
		text("index-is-not-utf-8", "{\"weight_map\":{\"\xff\":\"x.safetensors\"}}"),
		where("index-leads-out-of-the-folder", "../"+Shard2),
		where("index-leads-to-an-absolute-path", "/etc/passwd.safetensors"),
		where("index-leads-into-a-subfolder", "sub/x.safetensors"),
		where("index-leads-out-by-backslashes", `..\x.safetensors`),
		where("index-names-the-folder", ".safetensors"),
		where("index-names-a-zero-byte", "x\x00.safetensors"),
		where("index-names-another-kind-of-file", "config.json"),
		where("index-names-nothing", ""),
		where("index-names-an-absent-shard", "model-00003-of-00002.safetensors"),
		where("index-names-the-wrong-shard", Shard1),
		{Name: "index-has-a-key-too-many", do: func(f *folder) {
			f.index(map[string]string{weight: Shard1, grid: Shard2, norm: Shard2,
				"model.more": Shard1})
		}},
		{Name: "index-names-a-hundred-thousand-shards", Big: true, do: func(f *folder) {
			m := map[string]string{}
			for i := range 100_000 {
				m[fmt.Sprint(i)] = fmt.Sprintf("model-%06d.safetensors", i)
			}
			f.index(m)
		}},
		{Name: "index-too-large", do: func(f *folder) { f.sparse(index, []byte("{"), 1<<40) }},
		{Name: "index-of-three-million-keys", Big: true, do: func(f *folder) {
			f.stream(index, 64<<20, `{"weight_map":{"first":"x.safetensors"`, func(i int) string {
				return fmt.Sprintf(`,"%x":"x.safetensors"`, i)
			}, "}}")
		}},
		{Name: "index-of-metadata", Big: true, do: func(f *folder) {
			lists := strings.Repeat(",[]", 1000)
			f.stream(index, 63<<20, `{"metadata":{"total_size":12,"a":[0`, func(int) string {
				return lists
			},
				fmt.Sprintf(`]},"weight_map":{%q:%q,%q:%q,%q:%q}}`, weight, Shard1, grid, Shard2,
					norm, Shard2))
		}},
		{Name: "key-in-two-shards", do: func(f *folder) {
			f.write(Shard1,
				file(header(entry(weight, "F8_E4M3", "[2,2]", 0, 4),
					entry(norm, "BF16", "[2]", 4, 8)), 8))
		}},
		{Name: "count-in-a-name-lies", Big: true, do: func(f *folder) {
			f.remove(index, Shard1)
			f.try(func() error {
				return os.Rename(f.path(Shard2), f.path("model-00001-of-999999.safetensors"))
			})
		}},
	}
}

// files are names of something that is not a regular file.
func files() []Source {
	folderNamed := func(name string) func(f *folder) {
		return func(f *folder) {
			f.remove(name)
			f.try(func() error { return os.Mkdir(f.path(name), 0o755) })
		}
	}
	linked := func(name, file, target string) Source {
		return Source{Name: name, do: func(f *folder) { f.link(target, file) }}
	}
	// inside is a source with a subfolder.
	inside := func(name string, do func(f *folder)) Source {
		return Source{Name: name, do: func(f *folder) {
			f.try(func() error { return os.Mkdir(f.path("sub"), 0o755) })
			f.write("sub/config.json", []byte("{}"))
			do(f)
		}}
	}
	return append([]Source{
		linked("subfolder-links-to-etc", "sub", "/etc"),
		linked("subfolder-links-to-the-folder", "sub", "."),
		inside("subfolder-holds-links-to-etc", func(f *folder) { f.link("/etc/passwd", "sub/a") }),
		inside("subfolder-holds-a-circle", func(f *folder) { f.link("../sub", "sub/sub") }),
		inside("subfolder-holds-a-name-with-a-terminal-sequence", func(f *folder) {
			f.write("sub/a\x1b[2Jb", nil)
		}),
		inside("subfolder-holds-terabytes", func(f *folder) { f.sparse("sub/a", nil, 1<<43) }),
		inside("subfolder-is-deep", func(f *folder) {
			f.try(func() error {
				return os.MkdirAll(f.path("sub"+strings.Repeat("/a", 1000)), 0o755)
			})
		}),
		inside("subfolder-has-thousands-of-files", func(f *folder) {
			for i := range 2_500 {
				f.write(fmt.Sprintf("sub/%d", i), nil)
			}
		}),
		{Name: "config-names-weights-elsewhere", do: func(f *folder) {
			f.write("config.json", []byte(`{"transformers_weights":"../../etc/x.safetensors"}`))
		}},
		{Name: "config-names-weights-by-a-list", do: func(f *folder) {
			f.write("config.json", []byte(`{"transformers_weights":["`+Shard1+`"]}`))
		}},
		single("pieces-that-begin-at-no-number", file(`{"__metadata__":{"DCP_SHARDING_INFO":"{\"a\":{\"saved_offsets\":[1e300]}}"},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}`, 0)),
		single("pieces-that-begin-at-a-word", file(`{"__metadata__":{"DCP_SHARDING_INFO":"{\"a\":{\"saved_offsets\":\"x\"}}"},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}`, 0)),
		single("pieces-of-many-dimensions", file(`{"__metadata__":{"DCP_SHARDING_INFO":"{\"a\":{\"saved_offsets\":[`+strings.Repeat("0,", 100_000)+`0]}}"},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}`, 0)),
		bigHeader("pieces-of-ten-million-tensors",
			`{"__metadata__":{"DCP_SHARDING_INFO":"{\"a\":{}`, func(i int) string {
				return fmt.Sprintf(`,\"%x\":{}`, i)
			}, `}"}}`),
		single("pieces-that-nest-deep",
			file(`{"__metadata__":{"DCP_SHARDING_INFO":"`+strings.Repeat("[",
				100_000)+`"},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}`, 0)),
		linked("shard-links-to-etc", Shard2, "/etc/passwd"),
		linked("shard-links-out-of-the-folder", Shard2, "../outside.safetensors"),
		linked("shard-links-to-itself", Shard2, Shard2),
		linked("shard-links-in-a-circle", Shard2, "./x/../"+Shard2),
		linked("shard-links-to-nothing", Shard2, "absent"),
		linked("shard-links-to-a-device", Shard2, "/dev/zero"),
		linked("shard-links-to-the-kernel", Shard2, "/proc/meminfo"),
		linked("index-links-to-etc", index, "/etc/passwd"),
		linked("index-links-to-a-device", index, "/dev/zero"),
		linked("config-links-to-etc", "config.json", "/etc/passwd"),
		linked("config-links-to-a-device", "config.json", "/dev/zero"),
		{Name: "shard-is-a-folder", do: folderNamed(Shard2)},
		{Name: "index-is-a-folder", do: folderNamed(index)},
		{Name: "config-is-a-folder", do: folderNamed("config.json")},
		{Name: "shard-is-missing", do: func(f *folder) { f.remove(Shard2) }},
		{Name: "all-shards-are-missing", do: func(f *folder) { f.remove(Shard1, Shard2, index) }},
	}, special()...)
}
