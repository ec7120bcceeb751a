package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dequantfs/dequantfs/adapter/remote"
	"github.com/dequantfs/dequantfs/fs"
	"github.com/dequantfs/dequantfs/fs/export"
	"github.com/dequantfs/dequantfs/fs/serve"
)

// Defaults of the serve command. Clients refuse files of more than 50 GB over plain HTTP, and some
// begin a file anew if it is interrupted.
const (
	serveAddress = "127.0.0.1:8650"
	serveShards  = 10 << 30
)

func newServe() *cobra.Command {
	s := serveFlags{view: viewFlags{every: true, shardSize: serveShards}}
	c := &cobra.Command{
		Use:   "serve SOURCE",
		Short: "show a checkpoint over HTTP, as the Hub does, without FUSE",
		Long: "Serve the files that a mount would show over HTTP, in the form of the Hub. Each\n" +
			"layout is a repository NAME/LAYOUT. Programs that download from the Hub read it\n" +
			"with the HF_ENDPOINT that is printed. It needs no FUSE and no privileges.\n\n" +
			"Only this machine can connect, unless --listen says otherwise. Then clients must\n" +
			"send the token in --token-file as HF_TOKEN. Nothing is encrypted.",
		Example: "  dequantfs serve ~/models/DeepSeek-V3\n" +
			"  dequantfs serve ~/models/DeepSeek-V3 --listen 0.0.0.0:8650 --token-file /data/token",
		Args: arity(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			err := s.run(c, args[0])
			if c.Context().Err() != nil && errors.Is(err, context.Canceled) {
				return errInterrupted
			}
			return err
		},
	}
	s.view.register(c)
	s.register(c)
	return c
}

// serveFlags are the flags of the serve command.
type serveFlags struct {
	view      viewFlags
	cacheSize cacheSize
	listen    string
	hosts     []string
	tokenFile string
	name      string
	drain     time.Duration
	lifeline  lifeline
}

func (s *serveFlags) register(c *cobra.Command) {
	flags := c.Flags()
	flags.Var(&s.cacheSize, "cache-size", "memory for experts, 0: none (default a tenth)")
	flags.StringVar(&s.listen, "listen", serveAddress,
		"`ADDR` to listen on; :PORT is local only, port 0 any")
	flags.StringVar(&s.tokenFile, "token-file", "", "`FILE` with the token that clients must send")
	flags.StringSliceVar(&s.hosts, "host", nil, "further `NAMES` by which clients may connect")
	flags.StringVar(&s.name, "name", "", "`NAME` of the repositories (default that of SOURCE)")
	flags.DurationVar(&s.drain, "drain", serveDrain, "finish answers after SIGTERM or SIGINT")
	addQuiet(c)
	s.lifeline.register(c)
}

// serveDrain is how long answers under way are served after a signal.
const serveDrain = 10 * time.Second

func (s *serveFlags) run(c *cobra.Command, name string) error {
	r, err := s.view.check()
	if err != nil {
		return err
	}
	if err := notNegative("drain", s.drain, "45s"); err != nil {
		return err
	}
	token, err := readToken(s.tokenFile, logger(c))
	if err != nil {
		return err
	}
	listener, err := listenServe(s.listen, token != "")
	if err != nil {
		return err
	}
	defer listener.Close()
	s.lifeline.hold(c)
	boundPlanning()
	r.fits = fs.CheckMemory
	o := fs.Options{CacheSize: s.cacheSize.option(), Logger: logger(c)}
	source, err := openSource(c.Context(), name, o, r.opening, r.views)
	if err != nil {
		return err
	}
	server, err := s.server(c, source, name, token, listener)
	if err == nil {
		s.view.sayNative(logger(c), source.checkpoint)
		s.view.sayDType(logger(c), source.checkpoint)
		err = server.serve(c.Context(), s.drain)
	}
	return errors.Join(err, server.close(source))
}

// server makes the server of an opened source, and prints what to type.
func (s *serveFlags) server(
	c *cobra.Command, source *opened, name, token string, listener net.Listener,
) (*hubServer, error) {
	place, err := placeOf(source, name)
	if err != nil {
		return nil, err
	}
	repository := s.name
	if repository == "" {
		repository = nameOfSource(name)
	} else if repository != serve.Name(repository) {
		return nil, flagError("name", repository, "a name such as "+serve.Name(repository))
	}
	info, _ := debug.ReadBuildInfo()
	handler, err := serve.New(source.fs, serve.Options{
		Name: repository, Token: token, Version: version(info), Logger: logger(c),
	})
	if err != nil {
		return nil, err
	}
	h := &hubServer{
		handler: handler, log: logger(c), listener: listener, out: c.OutOrStdout(),
		opened: source, place: place, token: token != "", ready: s.lifeline.ready,
	}
	h.hosts = append(h.hosts, s.hosts...)
	h.hosts = append(h.hosts, hostsOf(s.listen, listener)...)
	return h, nil
}

// nameOfSource returns the name of the repositories of a source: the last part of its name, without
// a revision and without the signature in an address.
func nameOfSource(name string) string {
	if abs, err := filepath.Abs(name); err == nil && !remote.Is(name) {
		if _, err := os.Stat(name); err == nil {
			return nameOfFolder(filepath.ToSlash(abs))
		}
	}
	name, _, _ = strings.Cut(name, "?")
	name, _, _ = strings.Cut(name, "/tree/") // the page of a revision on the Hub
	name, _, _ = strings.Cut(name, "@")
	return nameOfFolder(strings.TrimRight(name, "/"))
}

// nameOfFolder returns the name of a folder or a file. A snapshot in the Hub cache has that of its
// repository.
func nameOfFolder(name string) string {
	for part := range strings.SplitSeq(name, "/") {
		if id, ok := strings.CutPrefix(part, "models--"); ok {
			return serve.Name(id[strings.LastIndex(id, "--")+1:])
		}
	}
	return serve.Name(strings.TrimSuffix(path.Base(name), ".safetensors"))
}

// hubServer serves an opened source.
type hubServer struct {
	handler  *serve.Handler
	log      *slog.Logger
	listener net.Listener
	out      io.Writer
	opened   *opened
	place    string
	hosts    []string
	token    bool
	ready    func(io.Writer) error
}

// maxClients is the most connections at once.
const maxClients = 1024

// serve serves until ctx ends. Then answers under way are finished for drain.
func (h *hubServer) serve(ctx context.Context, drain time.Duration) error {
	server := h.handler.Server(onlyKnownHosts(h.handler, h.hosts...))
	server.ErrorLog = slog.NewLogLogger(h.log.Handler(), slog.LevelDebug)
	failed := make(chan error, 1)
	go func() {
		failed <- server.Serve(&fewConnections{
			Listener: h.listener, taken: make(chan struct{}, maxClients),
		})
	}()
	defer h.announce()()
	if err := h.sayHow(); err != nil {
		return errors.Join(err, server.Close())
	}
	progress, stop := context.WithCancel(ctx)
	defer stop()
	go h.watch(progress)
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	if n := h.handler.Stats().Active; n > 0 {
		h.log.Info(fmt.Sprintf("finishing %d answers for at most %s; a second signal ends them", n,
			drain))
	}
	if err := server.Shutdown(end); err != nil {
		h.log.Warn("answers are not finished: their clients get errors and can go on later")
		return ignoreClosed(server.Close())
	}
	return nil
}

// close closes the source, but does not wait forever for a file that does not answer.
func (h *hubServer) close(source *opened) error {
	m := &mounted{opened: source, log: slog.New(slog.DiscardHandler)}
	if h != nil {
		m.log = h.log
	}
	return m.closeSource()
}

// sayHow prints what clients type.
func (h *hubServer) sayHow() error {
	h.log.Info(fmt.Sprintf("serving %s at %s; Ctrl-C ends it", h.place, h.url()))
	token := ""
	if h.token {
		token = "HF_TOKEN=… "
	}
	for i, id := range h.handler.IDs() {
		layout := h.opened.views[i].Plan.Options.Layout
		_, err := fmt.Fprintf(h.out,
			"%sHF_ENDPOINT=%s hf download %s   # from_pretrained(%q): %s\n",
			token, h.url(), id, id, readersOf(layout, h.opened.checkpoint))
		if err != nil {
			return err
		}
	}
	return h.ready(h.out)
}

// url returns the address for clients. A server that listens on all addresses is shown by the name
// of the machine.
func (h *hubServer) url() string {
	addr, ok := h.listener.Addr().(*net.TCPAddr)
	if !ok || !addr.IP.IsUnspecified() {
		return "http://" + h.listener.Addr().String()
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return fmt.Sprintf("http://%s", net.JoinHostPort(host, fmt.Sprint(addr.Port)))
}

// announce tells status and systemd about the server. The returned function withdraws that.
func (h *hubServer) announce() (end func()) {
	r := record{
		Mountpoint: h.url(), Source: h.place, Folder: h.opened.checkpoint.Location(),
		PID: os.Getpid(), Started: time.Now(),
	}
	for _, v := range h.opened.views {
		r.Views = append(r.Views, export.RecordView(v))
	}
	entry, err := register(r, h.opened.fs.Stats)
	if err != nil {
		h.log.Warn("dequantfs status will not show this server", "err", err)
	}
	state := fmt.Sprintf("READY=1\nMAINPID=%d\nSTATUS=serving at %s", r.PID, r.Mountpoint)
	if err := notify(state); err != nil {
		h.log.Warn("cannot tell systemd that the server is ready", "err", err)
	}
	return func() {
		_ = notify("STOPPING=1") // systemd sees the end in any case
		if entry != nil {
			entry.Close()
		}
	}
}

// progressEvery is the time between two lines about progress.
const progressEvery = 10 * time.Second

// watch logs what was served, as long as something is.
func (h *hubServer) watch(ctx context.Context) {
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	before := h.handler.Stats()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := h.handler.Stats()
		if now.Sent != before.Sent || now.Active > 0 {
			h.log.Info(progressLine(before, now, progressEvery))
		}
		before = now
	}
}

func progressLine(before, now serve.Stats, in time.Duration) string {
	line := fmt.Sprintf("served %s, %s, %d %s under way", formatSize(now.Sent),
		formatRate(now.Sent-before.Sent, in), now.Active, plural(int(now.Active), "file", "files"))
	if n := now.Aborted - before.Aborted; n > 0 {
		line += fmt.Sprintf(", %d ended early", n)
	}
	return line
}

// listenServe listens on an address. Without a token only this machine may connect.
func listenServe(addr string, token bool) (net.Listener, error) {
	if !strings.Contains(addr, ":") {
		addr = ":" + addr
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, flagError("listen", addr, "an address such as 127.0.0.1:8650 or :8650")
	}
	if host == "" {
		host = "127.0.0.1"
	}
	if !token && !isLoopback(host) {
		err := fmt.Errorf("--listen %s: other machines could read the checkpoint", addr)
		return nil, usageError{withHint(err, "give --token-file FILE, "+
			"made with: (umask 077; openssl rand -hex 32 > FILE)")}
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, withHint(err, "choose another address: --listen 127.0.0.1:0 takes any port")
	}
	if bound, ok := l.Addr().(*net.TCPAddr); !token && (!ok || !bound.IP.IsLoopback()) {
		return nil, errors.Join(fmt.Errorf("--listen %s: %s is not local", addr, l.Addr()),
			l.Close())
	}
	return l, nil
}

// isLoopback reports whether a host is this machine and nothing else.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback() || strings.EqualFold(host, "localhost")
}

// hostsOf returns the names that clients may use for a listener: the one in the address or, if it
// listens on all addresses, those of the machine.
func hostsOf(addr string, l net.Listener) (names []string) {
	if host, _, err := net.SplitHostPort(addr); err == nil && host != "" {
		names = append(names, host)
	}
	if bound, ok := l.Addr().(*net.TCPAddr); ok && bound.IP.IsUnspecified() {
		if name, err := os.Hostname(); err == nil {
			short, _, _ := strings.Cut(name, ".")
			names = append(names, name, short)
		}
	}
	return names
}

// Limits of the text in a token file.
const (
	minToken = 16
	maxToken = 1024
)

// readToken reads the token that clients must send. Without a file there is none.
func readToken(name string, log *slog.Logger) (string, error) {
	if name == "" {
		return "", nil
	}
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && info.Mode().Perm()&0o004 != 0 && runtime.GOOS != "windows" {
		log.Warn(name + " can be read by all users of this machine: chmod 600 it")
	}
	text, err := io.ReadAll(io.LimitReader(f, maxToken+2))
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	wrong := func(r rune) bool { return r <= ' ' || r > '~' }
	if len(token) < minToken || len(token) > maxToken || strings.ContainsFunc(token, wrong) {
		err := fmt.Errorf("%s: a token is one word of %d to %d ASCII characters", name, minToken,
			maxToken)
		return "", withHint(err, "make one with: (umask 077; openssl rand -hex 32 > %s)", name)
	}
	return token, nil
}
