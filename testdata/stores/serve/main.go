// Command serve starts a store of package stores, with the files of a folder in it, and prints the
// environment that a client needs and the SOURCE, as a shell reads them. It serves until its
// standard input ends:
//
//	go run ./testdata/stores/serve -delay 30ms -per-connection 67e6 s3 FOLDER </dev/zero >env &
//	until grep -qs SOURCE env; do sleep 0.1; done; . ./env; dequantfs ls "$SOURCE"
//
// A delay, a rate or faults put a proxy in between.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/dequantfs/dequantfs/testdata/faultproxy"
	"github.com/dequantfs/dequantfs/testdata/stores"
)

// options are the flags.
type options struct {
	prefix         string
	expiry         time.Duration
	access, old    string
	limit, page    int
	plan           faultproxy.Plan
	perConn, total float64
	kinds          string
}

// main reads the flags.
func main() {
	var o options
	flag.StringVar(&o.prefix, "prefix", "org/model", "prefix of the objects, or the repository")
	flag.DurationVar(&o.expiry, "expiry", time.Hour, "how long the signed URLs of a hub are valid")
	flag.StringVar(&o.access, "access", "public",
		"who may read the repository of a hub: public, gated, private")
	flag.StringVar(&o.old, "old", "", "an old name of the repository of a hub")
	flag.IntVar(&o.limit, "limit", 0, "requests to a hub that are refused first, with 429")
	flag.IntVar(&o.page, "page", 1000, "entries of one page of a hub's listing")
	flag.DurationVar(&o.plan.Delay, "delay", 0, "delay of each request")
	flag.Float64Var(&o.perConn, "per-connection", 0, "bytes per second of one connection")
	flag.Float64Var(&o.total, "total", 0, "bytes per second of all connections")
	flag.Float64Var(&o.plan.Rate, "faults", 0, "the part of requests that get a fault, from 0 to 1")
	flag.StringVar(&o.kinds, "kinds", "", "kinds of faults, separated by commas; all if empty")
	flag.Uint64Var(&o.plan.Seed, "seed", 1, "seed of the faults")
	flag.IntVar(&o.plan.InARow, "in-a-row", 3, "faults in a row of one request; 0: no limit")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(),
			"usage: serve [flags] s3|moto|gcs|azure|http|https|hub FOLDER")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 2 || starters[flag.Arg(0)] == nil {
		flag.Usage()
		os.Exit(2)
	}
	o.plan.PerConnection, o.plan.Total = int64(o.perConn), int64(o.total)
	for _, k := range strings.Split(o.kinds, ",") {
		if k != "" {
			o.plan.Kinds = append(o.plan.Kinds, faultproxy.Kind(k))
		}
	}
	os.Exit(serve(o, flag.Arg(0), flag.Arg(1)))
}

// serve serves until the input ends or a signal comes.
func serve(o options, store, folder string) (status int) {
	t := &run{}
	defer func() {
		if why := recover(); why != nil {
			if why != t {
				defer panic(why)
			}
			status = 1
		}
		t.end()
	}()
	env, source := starters[store](t, o, folder)
	for _, variable := range append(env, "SOURCE="+source) {
		name, value, _ := strings.Cut(variable, "=")
		fmt.Printf("export %s='%s'\n", name, value)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		signals <- os.Interrupt
	}()
	<-signals
	return 0
}

// starters start each store with the files of a folder.
var starters = map[string]func(t *run, o options, folder string) (env []string, source string){
	"s3":    store(func(t *run) *stores.Server { return stores.S3(t, "") }),
	"moto":  store(func(t *run) *stores.Server { return stores.Moto(t) }),
	"gcs":   store(func(t *run) *stores.Server { return stores.GCS(t) }),
	"azure": store(func(t *run) *stores.Server { return stores.Azure(t) }),
	"http":  store(func(t *run) *stores.Server { return stores.HTTP(t, "") }),
	"https": https,
	"hub":   hub,
}

// store makes a starter of a store that can be put behind a proxy as it is.
func store(start func(*run) *stores.Server) func(*run, options, string) ([]string, string) {
	return func(t *run, o options, folder string) ([]string, string) {
		s := start(t)
		s.Put(t, o.prefix, folder)
		s = s.At(o.through(t, s.URL, nil))
		return s.Env(), s.Source(o.prefix)
	}
}

// https has a proxy with a certificate of the same authority.
func https(t *run, o options, folder string) ([]string, string) {
	a := stores.NewAuthority(t)
	s := stores.Files(t, "", stores.FileOptions{Authority: a})
	s.Put(t, o.prefix, folder)
	s = s.At(o.through(t, s.URL, a))
	return s.Env(), s.Source(o.prefix)
}

var accesses = map[string]stores.Access{"gated": stores.Gated, "private": stores.Private}

// hub puts the proxy before the storage, where the bytes come from.
func hub(t *run, o options, folder string) ([]string, string) {
	storage := stores.S3(t, "")
	h := stores.StartHub(t, stores.HubOptions{Storage: storage.At(o.through(t, storage.URL, nil)),
		Expiry: o.expiry, Page: o.page})
	if o.old != "" {
		h.Put(t, o.old, t.TempDir())
		h.Rename(o.old, o.prefix)
	}
	h.Put(t, o.prefix, folder)
	h.Limit(o.limit, 1)
	h.Restrict(o.prefix, accesses[o.access])
	return h.Env(), h.Source(o.prefix)
}

// through starts a proxy if the flags need one.
func (o options) through(t *run, url string, a *stores.Authority) string {
	p := o.plan
	if p.Delay == 0 && p.PerConnection == 0 && p.Total == 0 && p.Rate == 0 {
		return url
	}
	if a == nil {
		return faultproxy.New(t, url, p).URL
	}
	return faultproxy.NewTLS(t, url, p, a.Certificate, a.Pool).URL
}

// run is what a test is to the packages: it ends what was started.
type run struct{ cleanups []func() }

// Helper does nothing.
func (t *run) Helper() {}

// Logf prints to the standard error.
func (t *run) Logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "serve: "+format+"\n", args...)
}

// Fatalf ends the program with status 1.
func (t *run) Fatalf(format string, args ...any) {
	t.Logf(format, args...)
	panic(t)
}

// Skipf is an error too.
func (t *run) Skipf(format string, args ...any) { t.Fatalf(format, args...) }

// Cleanup keeps what is to be done at the end.
func (t *run) Cleanup(f func()) { t.cleanups = append(t.cleanups, f) }

// TempDir makes a folder that is removed at the end.
func (t *run) TempDir() string {
	dir, err := os.MkdirTemp("", "serve-")
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// end does in reverse what is to be done at the end.
func (t *run) end() {
	for i := len(t.cleanups) - 1; i >= 0; i-- {
		t.cleanups[i]()
	}
}
