// Command remotebench measures how fast a mount of a remote source is read, as ratios of the same
// run. A file server on loopback is behind a proxy that makes it distant:
//
//	go run ./testdata/remotebench
//	go run ./testdata/remotebench -delay 100ms -total 0 -source ~/models/DeepSeek-V3
//
// Each round reads the source's bytes with a plain reader of many ranges, the mount with 16
// readers, and the mount through one mapping. Then it compares a mount with a warm disk cache to a
// mount of the local source. Rates are bytes of the source in a second, so they can be compared.
package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dequantfs/dequantfs/testdata/faultproxy"
	"github.com/dequantfs/dequantfs/testdata/stores"
	"github.com/dequantfs/dequantfs/testdata/synth"
)

// options are the flags.
type options struct {
	source, program, layout, only string
	size, readers, connections    int
	rounds                        int
	plan                          faultproxy.Plan
	perConn, total                float64
	flags, cacheDir               string
	drop                          bool
	least                         float64
}

func main() {
	var o options
	flag.StringVar(&o.source, "source", "", "checkpoint; one of FP8 is made if it is empty")
	flag.StringVar(&o.program, "program", "", "dequantfs; it is built if it is empty")
	flag.StringVar(&o.layout, "layout", "hf", "layout of the mounts")
	flag.StringVar(&o.flags, "flags", "", "further flags of the mounts, separated by spaces")
	flag.StringVar(&o.only, "only", "", "cold or cache; both if empty")
	flag.StringVar(&o.cacheDir, "cache", "", "folder of the disk cache; a new one if it is empty")
	flag.IntVar(&o.size, "size", 1024, "MiB of the checkpoint that is made")
	flag.IntVar(&o.readers, "readers", 16, "readers of the mount")
	flag.IntVar(&o.connections, "connections", 32, "connections of the plain reader")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds; the medians count")
	flag.DurationVar(&o.plan.Delay, "delay", 30*time.Millisecond, "delay of each request")
	flag.Float64Var(&o.perConn, "per-connection", 67e6, "bytes per second of one connection")
	flag.Float64Var(&o.total, "total", 200e6, "bytes per second of all connections; 0: no limit")
	flag.BoolVar(&o.drop, "drop", false, "drop local files from memory before they are read")
	flag.Float64Var(&o.least, "least", 0, "fail if a ratio is below")
	flag.Parse()
	o.plan.PerConnection, o.plan.Total = int64(o.perConn), int64(o.total)
	t := &run{}
	err := o.measure(t)
	t.end()
	if err != nil {
		fmt.Fprintln(os.Stderr, "remotebench:", err)
		os.Exit(1)
	}
}

// measure does the rounds, and prints the medians.
func (o *options) measure(t *run) error {
	b := &bench{options: o, dir: t.TempDir(), rates: map[string][]float64{}}
	defer b.unmount()
	if err := b.prepare(t); err != nil {
		return err
	}
	groups := map[string]func() error{"cold": b.cold, "cache": b.cache}
	for _, name := range []string{"cold", "cache"} {
		if o.only != "" && o.only != name {
			continue
		}
		for range o.rounds {
			if err := groups[name](); err != nil {
				return err
			}
		}
	}
	return b.report()
}

// bench is one run.
type bench struct {
	*options
	dir    string
	remote string // SOURCE
	bytes  int64  // of the shards
	urls   []object
	order  []string // of what was measured
	rates  map[string][]float64
	turn   int
	seen   atomic.Int64
}

// object is a shard on the server.
type object struct {
	url  string
	size int64
}

// prepare makes the checkpoint and the program, and starts the server and the proxy.
func (b *bench) prepare(t *run) error {
	if b.source == "" {
		b.source = filepath.Join(b.dir, "model")
		if err := write(b.source, b.size); err != nil {
			return err
		}
	}
	if b.program == "" {
		b.program = filepath.Join(b.dir, "dequantfs")
		if err := command("go", "build", "-o", b.program, "./cmd/dequantfs").Run(); err != nil {
			return err
		}
	}
	server := stores.HTTP(t, b.source)
	proxy := faultproxy.New(t, server.URL, b.plan)
	b.remote = proxy.URL + "/"
	shards, err := filepath.Glob(filepath.Join(b.source, "*.safetensors"))
	if err != nil || len(shards) == 0 {
		return errors.Join(err, fmt.Errorf("%s has no shards", b.source))
	}
	for _, s := range shards {
		info, err := os.Stat(s)
		if err != nil {
			return err
		}
		b.bytes += info.Size()
		b.urls = append(b.urls, object{proxy.URL + "/" + filepath.Base(s), info.Size()})
	}
	fmt.Printf("%d MB in %d shards; %v of delay, %d MB/s a connection, %d MB/s in all\n",
		b.bytes/1e6, len(shards), b.plan.Delay, b.plan.PerConnection/1e6, b.plan.Total/1e6)
	return os.Mkdir(filepath.Join(b.dir, "mnt"), 0o700)
}

// write makes a checkpoint of FP8 whose experts have the shapes of large models.
func write(dir string, mib int) error {
	const expert = 3 * 4096 * 2048 >> 20 // MiB
	return synth.DeepSeek(synth.Options{Hidden: 4096, ExpertIntermediate: 2048,
		DenseIntermediate: 8192, Vocab: 8192, Layers: 3, Experts: max(mib/2/expert, 1), Shards: 4}).
		Write(dir)
}

// cold reads the source and the mount, each with nothing in the memory of the client.
func (b *bench) cold() error {
	steps := []func() error{
		func() error { return b.time("plain reader of ranges", b.plainly) },
		func() error { return b.mounted("mount, several readers", b.remote, nil, b.readFiles) },
		func() error { return b.mounted("mount, one mapping", b.remote, nil, b.mapFiles) },
	}
	b.turn++
	for i := range steps {
		if err := steps[(i+b.turn)%len(steps)](); err != nil {
			return err
		}
	}
	return nil
}

// cache reads the local source, and the remote one through a disk cache that has all of it.
func (b *bench) cache() error {
	kept := cmp.Or(b.cacheDir, filepath.Join(b.dir, "cache"))
	disk := []string{"--disk-cache", kept}
	if b.turn = b.turn + 1; len(b.rates["cache, being filled"]) == 0 {
		if err := b.mounted("cache, being filled", b.remote, disk, b.readFiles); err != nil {
			return err
		}
	}
	steps := []func() error{
		func() error { return b.local(b.source, "local source", b.source, nil) },
		func() error { return b.local(kept, "disk cache", b.remote, disk) },
	}
	return errors.Join(steps[b.turn%2](), steps[(b.turn+1)%2]())
}

// local reads a mount whose bytes are below a folder of this machine.
func (b *bench) local(folder, name, source string, flags []string) error {
	if err := touch(folder, b.drop); err != nil {
		return err
	}
	return b.mounted(name, source, flags, b.readFiles)
}

// time measures something that needs all bytes of the source.
func (b *bench) time(name string, do func() error) error {
	began := time.Now()
	if err := do(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	rate := float64(b.bytes) / time.Since(began).Seconds()
	if b.rates[name] == nil {
		b.order = append(b.order, name)
	}
	b.rates[name] = append(b.rates[name], rate)
	fmt.Printf("%-24s %7.1f MB/s\n", name, rate/1e6)
	return nil
}

// report prints the ratios.
func (b *bench) report() error {
	var low []string
	for _, r := range []struct{ name, to string }{
		{"mount, several readers", "plain reader of ranges"},
		{"mount, one mapping", "plain reader of ranges"},
		{"disk cache", "local source"},
	} {
		if b.rates[r.name] == nil {
			continue
		}
		ratio := median(b.rates[r.name]) / median(b.rates[r.to])
		fmt.Printf("%s / %s: %.2f\n", r.name, r.to, ratio)
		if ratio < b.least {
			low = append(low, fmt.Sprintf("%s: %.2f", r.name, ratio))
		}
	}
	if low != nil {
		return fmt.Errorf("below %.2f: %s", b.least, strings.Join(low, "; "))
	}
	return nil
}

func median(list []float64) float64 {
	list = slices.Clone(list)
	slices.Sort(list)
	return list[len(list)/2]
}
