package main

import (
	"errors"
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

	"github.com/dequantfs/dequantfs/adapter/remote"
	"github.com/dequantfs/dequantfs/fs"
	"github.com/dequantfs/dequantfs/fs/export"
	"github.com/dequantfs/dequantfs/fs/units"
)

func newMount() *cobra.Command {
	m := mountFlags{view: viewFlags{every: true}}
	c := &cobra.Command{
		Use:     "mount SOURCE MOUNTPOINT",
		Short:   "mount a checkpoint",
		Long:    "Mount the views of a checkpoint: by default, a subdirectory for each layout.",
		Example: "  dequantfs mount ~/models/DeepSeek-V3 /mnt/v3 --layout hf",
		Args:    arity(2, 2),
		RunE:    func(c *cobra.Command, args []string) error { return m.run(c, args[0], args[1]) },
	}
	m.view.register(c)
	m.register(c)
	m.registerLasting(c)
	return c
}

// aheads are the values of --ahead.
var aheads = map[string]fs.Ahead{"auto": fs.AheadAuto, "on": fs.AheadOn, "off": fs.AheadOff}

// mountFlags are the flags of the mount command.
type mountFlags struct {
	view        viewFlags
	log         logFlags
	foreground  bool
	cacheSize   cacheSize
	readAhead   size
	ahead       string
	sourceCache string
	direct      bool
	allowOther  bool
	uid, gid    string
	mode        string
	idle, drain time.Duration
	metrics     string
	options     []string
	wait        waitFlag
	lifeline    lifeline
}

// sourceCaches are the values of --source-cache.
var sourceCaches = map[string]units.SourceCache{
	"auto": units.SourceAuto,
	"keep": units.SourceKeep,
	"drop": units.SourceDrop,
}

// registerLasting adds the flags of a mount that outlives the command.
func (m *mountFlags) registerLasting(c *cobra.Command) {
	flags := c.Flags()
	flags.BoolVarP(&m.foreground, "foreground", "f", false,
		"stay; SIGINT, SIGTERM and SIGHUP unmount")
	flags.DurationVar(&m.idle, "idle", 0, "unmount when unused for so long, as in 30m")
	flags.DurationVar(&m.drain, "drain", drainTime, "serve open files after SIGTERM")
	flags.StringSliceVarP(&m.options, "options", "o", nil, "flags by name as in fstab: -o `A,B=C`")
	m.lifeline.register(c)
}

// register adds the flags of every mount.
func (m *mountFlags) register(c *cobra.Command) {
	m.readAhead = 16 << 20
	flags := c.Flags()
	flags.Var(&m.cacheSize, "cache-size", "memory for experts, 0: none (default a tenth)")
	flags.Var(&m.readAhead, "read-ahead", "kernel read-ahead, if permitted")
	flags.StringVar(&m.ahead, "ahead", "auto", "decode ahead of loaders: auto, on or off")
	flags.StringVar(&m.sourceCache, "source-cache", "auto", "source pages: auto, keep or drop")
	flags.BoolVar(&m.direct, "direct", false, "reads go past the page cache; see help tuning")
	flags.BoolVar(&m.allowOther, "allow-other", false, "let others read what the source lets them")
	flags.StringVar(&m.uid, "uid", "", "owner of the files, a `UID` (default the caller)")
	flags.StringVar(&m.gid, "gid", "", "group that may read, a `GID` (default as source)")
	flags.StringVar(&m.mode, "mode", "", "`MODE` of the files, as 0444 (default as source)")
	flags.StringVar(&m.metrics, "metrics", "", "serve Prometheus on `ADDR`; :PORT is local only")
	flags.StringVar(&m.log.file, "log-file", "", "log to `FILE` (default in the state directory)")
	flags.StringVar(&m.log.format, "log-format", "", "text or json")
	flags.BoolVarP(&m.log.verbose, "verbose", "v", false, "log more")
	flags.Var(&m.wait, "wait", "mount once SOURCE is downloaded, in `TIME`")
	flags.Lookup("wait").NoOptDefVal = forever
	for _, rare := range []string{"log-format", "source-cache"} {
		_ = flags.MarkHidden(rare) // topics have them; it fails only for an unknown flag
	}
	addQuiet(c)
}

// mountRequest is the checked request of the flags.
type mountRequest struct {
	view *request
	fs   fs.Options
	to   fs.MountOptions
}

func (m *mountFlags) run(c *cobra.Command, name, mountpoint string) error {
	if err := applyOptions(c, m.options); err != nil {
		return err
	}
	r, err := m.check(c)
	if err != nil {
		return err
	}
	if mountpoint, err = realMountpoint(mountpoint); err != nil {
		return err
	}
	if m.log.file, err = absolute(m.log.file); err != nil {
		return err
	}
	p := newProcess()
	if !p.child {
		if err := m.wait.download(c, name, r.view.opening); err != nil {
			return err
		}
	}
	if !m.foreground && !p.child {
		return m.background(c, mountpoint)
	}
	m.lifeline.hold(c)
	return m.serve(c, p, r, name, mountpoint)
}

// background starts a process that mounts and serves, and returns when the mountpoint can be read.
func (m *mountFlags) background(c *cobra.Command, mountpoint string) error {
	if isDescriptor(mountpoint) {
		return withHint(errors.New("a mount through /dev/fd stays in the foreground"),
			"add --foreground")
	}
	log, err := m.logPath(mountpoint)
	if err != nil {
		return err
	}
	err = startBackground(c.Context(), m.lifeline.input(), c.ErrOrStderr(), log, os.Args[1:]...)
	if err != nil && log != m.log.file {
		m.lifeline.discard(log)
	}
	return err
}

// check finds mistakes in the flags before anything is opened, and returns the request.
func (m *mountFlags) check(c *cobra.Command) (*mountRequest, error) {
	m.log.quiet = isQuiet(c)
	view, err := m.view.check()
	if err != nil {
		return nil, err
	}
	r := &mountRequest{view: view}
	r.view.fits = fs.CheckMemory
	r.fs = fs.Options{CacheSize: m.cacheSize.option(), SourceCache: sourceCaches[m.sourceCache]}
	r.to = fs.MountOptions{
		ReadAhead: int64(m.readAhead), Ahead: aheads[m.ahead],
		AllowOther: m.allowOther, Direct: m.direct,
	}
	for _, step := range []func() error{
		m.log.check,
		func() error { return m.lifeline.check(m.foreground) },
		func() error { return oneOf("source-cache", m.sourceCache, "auto", "keep", "drop") },
		func() error { return oneOf("ahead", m.ahead, "auto", "on", "off") },
		func() error { return notNegative("idle", m.idle, "30m") },
		func() error { return notNegative("drain", m.drain, "45s") },
		func() (err error) { r.to.UID, err = parseID("uid", m.uid); return err },
		func() (err error) { r.to.GID, err = parseID("gid", m.gid); return err },
		func() (err error) { r.to.Mode, err = parseMode(m.mode); return err },
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func notNegative(flag string, d time.Duration, example string) error {
	if d < 0 {
		return flagError(flag, d.String(), "a time such as "+example)
	}
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

func parseMode(text string) (*uint32, error) {
	if text == "" {
		return nil, nil
	}
	mode, err := strconv.ParseUint(text, 8, 32)
	if err != nil || mode&^0o444 != 0 {
		return nil, flagError("mode", text, "made of read bits only, such as 0444 or 0440")
	}
	bits := uint32(mode)
	return &bits, nil
}

// logPath returns the log of a mount in the background.
func (m *mountFlags) logPath(mountpoint string) (string, error) {
	if m.log.file != "" {
		return m.log.file, nil
	}
	return defaultLog(mountpoint)
}

// serve mounts and serves until the mount is gone.
func (m *mountFlags) serve(
	c *cobra.Command, p *process, r *mountRequest, name, mountpoint string,
) error {
	signal.Ignore(syscall.SIGPIPE) // the reader of the log may go away
	late, end, err := m.handler(c, p)
	if err != nil {
		return err
	}
	defer func() { end() }()
	log := slog.New(late)
	mounted, exporter, withdraw, err := m.present(c, p, r, log, name, mountpoint)
	if err != nil {
		return err
	}
	defer withdraw()
	if exporter != nil {
		log = log.With("metrics", exporter.address())
	}
	people := slog.New(m.log.people(c.ErrOrStderr()))
	mounted.sayLockedOut(people)
	m.sayRootOnly(people)
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
	if err := logged(log, mounted.serve(c.Context(), m.idle, m.drain)); err != nil {
		return err
	}
	m.clear(p, mounted)
	return nil
}

// sayRootOnly logs that no other user can read a mount of root. The kernel refuses them, whatever
// the permissions of the files say.
func (m *mountFlags) sayRootOnly(log *slog.Logger) {
	if os.Geteuid() == 0 && !m.allowOther {
		log.Info("only root can read this mount: --allow-other lets other users read what the " +
			"source lets them read")
	}
}

// present mounts, and shows the mount to status and its numbers to --metrics. The caller serves it,
// and calls withdraw at the end. The server of the numbers is nil if none is asked for.
func (m *mountFlags) present(
	c *cobra.Command, p *process, r *mountRequest, log *slog.Logger, name, mountpoint string,
) (mounted *mounted, exporter *metricsServer, withdraw func(), err error) {
	if exporter, err = m.listen(); err != nil {
		return nil, nil, nil, err
	}
	if mounted, err = m.mount(c, r, log, name, mountpoint); err != nil {
		exporter.Close()
		return nil, nil, nil, err
	}
	if exporter != nil {
		exporter.serve(mounted.fs.Stats)
	}
	hide := mounted.announce(m.record(mounted, p, exporter))
	return mounted, exporter, func() {
		hide()
		exporter.Close()
	}, nil
}

// clear removes what a mount with --until-eof made. A log that was asked for stays.
func (m *mountFlags) clear(p *process, mounted *mounted) {
	var log string
	if p.child && m.log.file == "" {
		log, _ = defaultLog(mounted.mountpoint)
	}
	m.lifeline.clear(mounted.made, log)
}

// listen listens for Prometheus. Without --metrics it returns nil.
func (m *mountFlags) listen() (*metricsServer, error) {
	if m.metrics == "" {
		return nil, nil
	}
	return listenMetrics(m.metrics)
}

// handler returns the handler of messages, and a function to call at the end of the mount. A mount
// in the foreground logs to its log file or, without one, to standard error. A mount in the
// background first logs to standard error and later to its log.
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

// logged also writes the error at the end of a mount to its log.
func logged(log *slog.Logger, err error) error {
	if err != nil {
		log.Error("the mount ended with an error", "err", err)
		return quiet{1}
	}
	log.Info("unmounted")
	return nil
}

// record is the entry of this mount for status.
func (m *mountFlags) record(mounted *mounted, p *process, exporter *metricsServer) record {
	r := record{
		Mountpoint: mounted.mountpoint, Source: mounted.place,
		Folder: mounted.checkpoint.Location(),
		PID:    os.Getpid(), Started: time.Now(), Log: m.log.file, Direct: m.direct,
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

// mount opens the source and mounts it. After an error nothing stays mounted or open.
func (m *mountFlags) mount(
	c *cobra.Command, r *mountRequest, log *slog.Logger, name, mountpoint string,
) (*mounted, error) {
	boundPlanning()
	if err := fs.CheckMemory(nil, 0); err != nil {
		return nil, err
	}
	r.fs.Logger = log
	s, err := openSource(c.Context(), name, r.fs, r.view.opening, r.view.views)
	if err != nil {
		return nil, err
	}
	if r.to.FsName, err = placeOf(s, name); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	mounted, err := mountSource(s, mountpoint, r.to, log)
	if err != nil {
		return nil, explainMount(err, mountpoint, remote.Shown(name))
	}
	mounted.place = r.to.FsName
	if m.view.every {
		mounted.sayReaders(logger(c))
	} else {
		m.view.sayReaders(logger(c), s.checkpoint)
	}
	mounted.sayUnmapped(logger(c))
	m.view.sayNative(logger(c), s.checkpoint)
	m.view.sayDType(logger(c), s.checkpoint)
	if line, err := summaryOf(s.checkpoint); err == nil { // planning went well without one
		log.Debug(line)
	}
	return mounted, nil
}

// sayReaders logs which programs read each layout. With the wrong one, a loader may start with
// random experts and only a warning.
func (m *mounted) sayReaders(log *slog.Logger) {
	said := map[string]bool{}
	for _, v := range m.views {
		layout := v.Plan.Options.Layout
		if !said[layout] {
			log.Info(folderOf(m.mountpoint, layout, v.Dir) + "/ is for " +
				readersOf(layout, m.checkpoint))
		}
		said[layout] = true
	}
}

// folderOf returns the folder of a layout: the mountpoint itself if the folders of its views are
// not in one with its name.
func folderOf(mountpoint, layout, dir string) string {
	if first, _, _ := strings.Cut(dir, "/"); first != layout {
		return mountpoint
	}
	return filepath.Join(mountpoint, layout)
}

// isDescriptor reports whether a mountpoint is a descriptor of FUSE that the caller has mounted.
func isDescriptor(mountpoint string) bool { return strings.HasPrefix(mountpoint, "/dev/fd/") }
