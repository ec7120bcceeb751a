package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/fs"
	"github.com/dequantfs/dequantfs/fs/export"
	"github.com/dequantfs/dequantfs/fs/units"
)

func newMount() *cobra.Command {
	m := mountFlags{view: viewFlags{every: true}}
	c := &cobra.Command{
		Use:   "mount SOURCE MOUNTPOINT",
		Short: "mount a checkpoint",
		Long: "Mount the views of a checkpoint. Without --layout there is one subdirectory for\n" +
			"each layout of the family. Returns once the mountpoint can be read.",
		Example: "  dequantfs mount ~/models/DeepSeek-V3 /mnt/v3 --layout hf",
		Args:    arity(2, 2),
		RunE:    func(c *cobra.Command, args []string) error { return m.run(c, args[0], args[1]) },
	}
	m.view.register(c)
	m.register(c)
	return c
}

// mountFlags are the flags of the mount command.
type mountFlags struct {
	view        viewFlags
	log         logFlags
	foreground  bool
	cacheSize   size
	readAhead   size
	sourceCache string
	allowOther  bool
	uid, gid    string
	mode        string
	idle, drain time.Duration
	metrics     string
	options     []string
}

// sourceCaches are what --source-cache takes.
var sourceCaches = map[string]units.SourceCache{
	"auto": units.SourceAuto, "keep": units.SourceKeep, "drop": units.SourceDrop,
}

func (m *mountFlags) register(c *cobra.Command) {
	m.readAhead = 16 << 20
	flags := c.Flags()
	flags.BoolVarP(&m.foreground, "foreground", "f", false, "stay; SIGINT, SIGTERM and SIGHUP unmount")
	flags.Var(&m.cacheSize, "cache-size", "memory for experts (default a tenth of all)")
	flags.Var(&m.readAhead, "read-ahead", "kernel read-ahead, if permitted")
	flags.StringVar(&m.sourceCache, "source-cache", "auto", "source pages in memory: auto (those read twice), keep, drop")
	flags.BoolVar(&m.allowOther, "allow-other", false, "let others read what the source lets them")
	flags.StringVar(&m.uid, "uid", "", "owner of the files, a `UID` (default the caller)")
	flags.StringVar(&m.gid, "gid", "", "group that may read, a `GID` (default as source)")
	flags.StringVar(&m.mode, "mode", "", "`MODE` of the files, as 0444 (default as source)")
	flags.DurationVar(&m.idle, "idle", 0, "unmount when unused for so long, as in 30m")
	flags.DurationVar(&m.drain, "drain", drainTime, "serve open files after SIGTERM")
	flags.StringVar(&m.metrics, "metrics", "", "serve Prometheus on `ADDR`; :PORT is local only")
	flags.StringVar(&m.log.file, "log-file", "", "log to `FILE` (default in the state directory)")
	flags.StringVar(&m.log.format, "log-format", "", "text or json")
	flags.BoolVarP(&m.log.verbose, "verbose", "v", false, "log more")
	flags.StringSliceVarP(&m.options, "options", "o", nil, "flags by name as in fstab: -o `A,B=C`")
}

func (m *mountFlags) run(c *cobra.Command, name, mountpoint string) error {
	if err := applyOptions(c, m.options); err != nil {
		return err
	}
	if err := m.check(); err != nil {
		return err
	}
	mountpoint, err := realMountpoint(mountpoint)
	if err != nil {
		return err
	}
	if m.log.file, err = absolute(m.log.file); err != nil {
		return err
	}
	p := newProcess()
	if !m.foreground && !p.child {
		if strings.HasPrefix(mountpoint, "/dev/fd/") {
			return withHint(errors.New("a mount through /dev/fd stays in the foreground"), "add --foreground")
		}
		log, err := m.logPath(mountpoint)
		if err != nil {
			return err
		}
		return startBackground(c.ErrOrStderr(), log, os.Args[1:]...)
	}
	return m.serve(c, p, name, mountpoint)
}

// realMountpoint gives the path that the kernel will know a mountpoint by. One in a folder that is missing
// will be made.
func realMountpoint(path string) (string, error) {
	if strings.HasPrefix(path, "/dev/fd/") {
		return path, nil
	}
	real, err := fs.ResolveMountpoint(path)
	if errors.Is(err, os.ErrNotExist) {
		return filepath.Abs(path)
	}
	return real, err
}

// absolute makes the path of a file that is there absolute. What is no path, such
// as the name of a repository, stays.
func absolute(name string) (string, error) {
	if _, err := os.Lstat(filepath.Dir(name)); name == "" || err != nil {
		return name, nil
	}
	return filepath.Abs(name)
}

// check finds mistakes in the flags before anything is opened.
func (m *mountFlags) check() error {
	if err := m.view.check(); err != nil {
		return err
	}
	if err := m.log.check(); err != nil {
		return err
	}
	if _, ok := sourceCaches[m.sourceCache]; !ok {
		return flagError("source-cache", m.sourceCache, "auto, keep or drop")
	}
	if m.idle < 0 {
		return flagError("idle", m.idle.String(), "a time such as 30m")
	}
	if m.drain < 0 {
		return flagError("drain", m.drain.String(), "a time such as 45s")
	}
	return m.grants(new(fs.MountOptions))
}

// grants reads --uid, --gid and --mode.
func (m *mountFlags) grants(o *fs.MountOptions) (err error) {
	if o.UID, err = parseID("uid", m.uid); err != nil {
		return err
	}
	if o.GID, err = parseID("gid", m.gid); err != nil || m.mode == "" {
		return err
	}
	mode, err := strconv.ParseUint(m.mode, 8, 32)
	if err != nil || mode&^0o444 != 0 {
		return flagError("mode", m.mode, "made of read bits only, such as 0444 or 0440")
	}
	bits := uint32(mode)
	o.Mode = &bits
	return nil
}

func parseID(flag, text string) (*uint32, error) {
	if text == "" {
		return nil, nil
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return nil, flagError(flag, text, "a number such as 1000")
	}
	id := uint32(n)
	return &id, nil
}

// logPath is where a mount in the background logs.
func (m *mountFlags) logPath(mountpoint string) (string, error) {
	if m.log.file != "" {
		return m.log.file, nil
	}
	return defaultLog(mountpoint)
}

// serve mounts and serves until the mount is gone.
func (m *mountFlags) serve(c *cobra.Command, p *process, name, mountpoint string) error {
	signal.Ignore(syscall.SIGPIPE) // the reader of the log may go away
	late, end, err := m.handler(c, p)
	if err != nil {
		return err
	}
	defer func() { end() }()
	log := slog.New(late)
	var exporter *metricsServer
	if m.metrics != "" {
		if exporter, err = listenMetrics(m.metrics); err != nil {
			return err
		}
		defer exporter.Close()
	}
	mounted, err := m.mount(c, log, name, mountpoint)
	if err != nil {
		return err
	}
	if exporter != nil {
		exporter.serve(mounted.fs.Stats)
		log = log.With("metrics", exporter.address())
	}
	defer mounted.announce(m.record(mounted, p, exporter))()
	if line, err := summaryOf(mounted.checkpoint); err == nil { // it was planned without one
		log.Debug(line)
	}
	mounted.sayLockedOut(slog.New(m.log.people(c.ErrOrStderr())))
	if err := p.ready(); err != nil {
		return errors.Join(err, mounted.close())
	}
	if p.child {
		var w io.Writer
		w, end = unhurried(os.Stderr)
		late.become(m.log.lasting(w))
	}
	if p.child || m.log.file != "" {
		mounted.sayLockedOut(log)
	}
	log.Info("mounted", "mountpoint", mountpoint, "source", mounted.place, "pid", os.Getpid())
	return logged(log, mounted.serve(c.Context(), m.idle, m.drain))
}

// handler says where messages go: in the foreground to the log file if there is
// one, else to standard error, which in the background turns into the log. At the end of the mount, end is
// to be called.
func (m *mountFlags) handler(c *cobra.Command, p *process) (h *lateHandler, end func(), err error) {
	if p.child {
		return newLateHandler(m.log.people(c.ErrOrStderr())), func() {}, nil
	}
	if m.log.file == "" {
		w, end := unhurried(c.ErrOrStderr())
		return newLateHandler(m.log.people(w)), end, nil
	}
	f, err := openLog(m.log.file)
	if err != nil {
		return nil, nil, err
	}
	w, end := unhurried(f)
	return newLateHandler(m.log.lasting(w)), end, nil
}

// logged makes sure that an error at the end of a mount is in its log too.
func logged(log *slog.Logger, err error) error {
	if err != nil {
		log.Error("the mount ended with an error", "err", err)
		return quiet{1}
	}
	log.Info("unmounted")
	return nil
}

// record is what status shows of this mount.
func (m *mountFlags) record(mounted *mounted, p *process, exporter *metricsServer) record {
	r := record{
		Mountpoint: mounted.mountpoint, Source: mounted.place, PID: os.Getpid(), Started: time.Now(),
		Log: m.log.file,
	}
	if p.child && r.Log == "" {
		r.Log, _ = defaultLog(r.Mountpoint)
	}
	for _, v := range mounted.views {
		r.Views = append(r.Views, export.RecordView(v))
	}
	if exporter != nil {
		r.Metrics = exporter.address()
	}
	return r
}

// mount opens the source and mounts it. After an error nothing is left behind.
func (m *mountFlags) mount(c *cobra.Command, log *slog.Logger, name, mountpoint string) (*mounted, error) {
	boundPlanning()
	if err := fs.CheckMemory(nil, 0); err != nil {
		return nil, err
	}
	m.view.fits = fs.CheckMemory
	s, err := openSource(c, name, &m.view, fs.Options{
		CacheSize: m.budget(c), SourceCache: sourceCaches[m.sourceCache], Logger: log,
	})
	if err != nil {
		return nil, err
	}
	place, err := absolute(s.checkpoint.Path)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	o := fs.MountOptions{ReadAhead: int64(m.readAhead), AllowOther: m.allowOther, FsName: place}
	if err := m.grants(&o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	mounted, err := mountSource(s, mountpoint, o)
	if err != nil {
		return nil, err
	}
	mounted.log, mounted.place = log, place
	m.sayWhoReadsWhat(c, s, mountpoint)
	return mounted, nil
}

// budget is the cache size as fs wants it, where 0 is the default.
func (m *mountFlags) budget(c *cobra.Command) int64 {
	if c.Flags().Changed("cache-size") && m.cacheSize == 0 {
		return -1
	}
	return int64(m.cacheSize)
}

// sayWhoReadsWhat goes with the subdirectories that nobody asked for by name: a
// loader that is given the wrong one may start with random experts and only a warning.
func (m *mountFlags) sayWhoReadsWhat(c *cobra.Command, s *source, mountpoint string) {
	if len(m.view.layouts) > 0 {
		return
	}
	said := map[string]bool{}
	for _, v := range s.views {
		layout, _ := adapter.LayoutNamed(v.Plan.Options.Layout)
		if said[layout.Name] {
			continue
		}
		said[layout.Name] = true
		dir := oneLine(filepath.Join(mountpoint, layout.Name))
		fmt.Fprintf(c.ErrOrStderr(), "dequantfs: %s/ is for %s\n", dir, layout.Readers)
	}
}

// sayLockedOut says which other users cannot read what. The kernel refuses them with an errno and no
// reason, so the reason goes to the user who mounts and to the log.
func (m *mounted) sayLockedOut(log *slog.Logger) {
	for i, line := range m.mount.LockedOut() {
		if i == 0 {
			line += "; --mode 0444 lets all users read everything, --gid GID one group, --uid UID one user"
		}
		log.Warn(line)
	}
}

// mounted is a source that is mounted.
type mounted struct {
	*source
	place      string // the source's, absolute
	mountpoint string
	mount      *fs.Mount
	log        *slog.Logger
}

// mountSource mounts s, which it closes if that fails. The mountpoint is made if
// it is missing.
func mountSource(s *source, mountpoint string, o fs.MountOptions) (*mounted, error) {
	made, err := makeMountpoint(mountpoint)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	mount, err := s.fs.Mount(mountpoint, o)
	if err != nil && made {
		os.Remove(mountpoint)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return &mounted{source: s, mountpoint: mountpoint, mount: mount, log: slog.New(slog.DiscardHandler)}, nil
}

// makeMountpoint makes a mountpoint that is missing.
func makeMountpoint(path string) (made bool, err error) {
	if strings.HasPrefix(path, "/dev/fd/") {
		return false, nil
	}
	_, err = os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return true, os.MkdirAll(path, 0o755)
	case errors.Is(err, syscall.ENOTCONN):
		return false, nil // a dead mount, which mounting clears
	}
	return false, err
}

// announce tells status and systemd that the mount is there; what it returns takes that back.
func (m *mounted) announce(r record) (end func()) {
	entry, err := register(r, m.fs.Stats)
	if err != nil {
		m.log.Warn("dequantfs status will not show this mount", "err", err)
	}
	state := fmt.Sprintf("READY=1\nMAINPID=%d\nSTATUS=mounted at %s", r.PID, r.Mountpoint)
	if err := notify(state); err != nil {
		m.log.Warn("cannot tell systemd that the mount is ready", "err", err)
	}
	return func() {
		notify("STOPPING=1")
		if entry != nil {
			entry.Close()
		}
	}
}

// serve serves until the mount is gone. When ctx ends, or the mount has been idle for
// so long, it unmounts; open files are served for drain after that, and then their readers get errors.
func (m *mounted) serve(ctx context.Context, idle, drain time.Duration) error {
	done, finish := context.WithCancel(context.WithoutCancel(ctx))
	defer finish()
	drained := make(chan struct{})
	defer context.AfterFunc(ctx, func() {
		defer close(drained)
		m.detach(done, drain)
	})()
	if idle > 0 {
		go watchIdle(done, idle, m.fs.Stats, m.leave)
	}
	go boundServing(m.mount)
	gone := make(chan error, 1)
	go func() { gone <- m.mount.Wait() }()
	var err error
	select {
	case err = <-gone:
	case <-drained:
	}
	return errors.Join(err, m.closeSource())
}

// patience is how long a mount that is gone waits for what it is still reading.
const patience = 5 * time.Second

// closeSource closes the source. A file of it that does not answer holds up nobody: there is nothing left to lose.
func (m *mounted) closeSource() error {
	closed := make(chan error, 1)
	go func() { closed <- m.source.Close() }()
	select {
	case err := <-closed:
		return err
	case <-time.After(patience):
		m.log.Warn("a file of the source does not answer: it is left as it is")
		return nil
	}
}

// drainTime is less than what those who end processes wait before they kill them: a minute in our examples of services.
const drainTime = 45 * time.Second

// detach unmounts. What is still in use after a few seconds is detached, and its readers are served for the rest of drain.
// It returns when that is over, or done ends since the mount is gone.
func (m *mounted) detach(done context.Context, drain time.Duration) {
	end, cancel := context.WithTimeout(done, drain)
	defer cancel()
	ctx, cancel := context.WithTimeout(end, patience)
	defer cancel()
	err := m.mount.Shutdown(ctx)
	switch {
	case done.Err() != nil:
		return
	case errors.Is(err, context.DeadlineExceeded):
		m.log.Warn("the mount is in use: it is detached, and open files are served until they are closed, but no longer than --drain says; a second signal ends that", "drain", drain)
	case err != nil:
		m.log.Error("cannot unmount", "err", err)
	}
	<-end.Done()
	if done.Err() == nil {
		m.log.Warn("open files are served no more: their readers get errors")
	}
}

// leave unmounts a mount that is idle, unless it is in use after all.
func (m *mounted) leave() {
	m.log.Info("unmounting: nothing was read for as long as --idle says")
	if err := m.mount.Unmount(false); err != nil {
		m.log.Warn("cannot unmount", "err", err)
	}
}

func (m *mounted) close() error {
	return errors.Join(m.mount.Unmount(true), m.source.Close())
}
