package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/fp8"
	"github.com/dequantfs/dequantfs/fs"
)

func newDoctor() *cobra.Command {
	var asJSON bool
	var source sourceFlags
	c := &cobra.Command{
		Use:   "doctor [SOURCE]",
		Short: "say what this machine lacks, and how to fix it",
		Long: "Look at FUSE, permissions, kernel settings, CPU kernels and memory, and with a\n" +
			"SOURCE at the checkpoint: whether it is complete, its family, and how large each\n" +
			"view is. Each line is ok, could be better, or broken, with a fix. The exit status\n" +
			"is 1 if anything is broken.",
		Example: "  dequantfs doctor\n  dequantfs doctor ~/models/DeepSeek-V3",
		Args:    arity(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			how, err := source.check()
			if err != nil {
				return err
			}
			findings := append(examineMachine(c.Context()), examineProgram()...)
			if len(args) > 0 {
				findings = append(findings, examineSource(c, args[0], how)...)
			}
			if asJSON {
				facts := map[string]any{"version": jsonVersion, "findings": findings}
				return errors.Join(writeJSON(c.OutOrStdout(), facts), worst(findings))
			}
			return errors.Join(writeFindings(c.OutOrStdout(), findings), worst(findings))
		},
	}
	source.register(c.Flags())
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	addQuiet(c)
	return c
}

// finding is one line of the doctor.
type finding struct {
	State string `json:"state"` // "ok", "could be better", "broken"
	Part  string `json:"part"`
	Says  string `json:"says"`
	Mend  string `json:"mend,omitempty"` // a command, or another fix
}

func ok(part, format string, args ...any) finding {
	return finding{State: "ok", Part: part, Says: fmt.Sprintf(format, args...)}
}

func better(part, says, mend string) finding {
	return finding{"could be better", part, says, mend}
}

func broken(part, says, mend string) finding {
	return finding{"broken", part, says, mend}
}

// worst returns a failure if a finding is broken.
func worst(findings []finding) error {
	for _, f := range findings {
		if f.State == "broken" {
			return quiet{1}
		}
	}
	return nil
}

// writeFindings prints a line for each finding. A reason for several broken parts is printed once.
func writeFindings(w io.Writer, findings []finding) error {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for i, f := range findings {
		if i > 0 && f.State == "broken" && f.Says == findings[i-1].Says {
			f.Says, f.Mend = "for the same reason", ""
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", f.State, f.Part, oneLine(f.Says))
		if f.Mend != "" {
			fmt.Fprintf(table, "\t\t→ %s\n", oneLine(f.Mend))
		}
	}
	return table.Flush()
}

// examineProgram examines everything that is the same on every system.
func examineProgram() []finding {
	return []finding{
		examineKernels(fp8.Implementation(), runtime.GOARCH),
		ok("tensor cache", "%s, unless --cache-size says otherwise",
			formatSize(fs.DefaultCacheSize())),
	}
}

// examineKernels reports which kernels decode, by the names of fp8.Implementation.
func examineKernels(implementation, architecture string) finding {
	const part = "CPU kernels"
	if implementation == "generic" && architecture == "amd64" {
		return better(part, "generic: this CPU has no AVX2, or hides it",
			"let the virtual machine see the host's CPU (qemu: -cpu host)")
	}
	return ok(part, "%s, %d CPUs", implementation, runtime.GOMAXPROCS(0))
}

// examineSource opens a checkpoint and plans every view of it.
func examineSource(c *cobra.Command, name string, how opening) []finding {
	log := logger(c)
	checkpoint, err := openCheckpoint(c.Context(), name, log, how)
	if err != nil {
		return []finding{broken("source", err.Error(), hintFor(err))}
	}
	defer checkpoint.Close()
	found := []finding{
		examineTensors(checkpoint),
		examineDTypes(checkpoint),
		ok("family", "%s", familyOf(checkpoint)),
	}
	// If that fails, every layout fails with the same error.
	if line, err := summaryOf(checkpoint); err == nil {
		found = append(found, ok("weights", "%s", line))
	}
	found = append(found, examineLayouts(checkpoint, log)...)
	if _, remote := checkpoint.Traffic(); remote {
		return append(found, examineNetwork(c.Context(), checkpoint)...)
	}
	return append(found, examineDisk(checkpoint.Path)...)
}

// probeBytes is how much is read to measure a source over a network. It is about one request of a
// reader.
const probeBytes = 8 << 20

// examineNetwork examines how a source over a network answers.
func examineNetwork(ctx context.Context, c *adapter.Checkpoint) []finding {
	found := []finding{
		examineVersion(c.Location(), c.Unseen()),
		ok("credentials", "%s", cmp.Or(c.Credentials(), "none are used")),
	}
	p, err := c.Probe(ctx, probeBytes)
	if err != nil {
		return append(found, broken("network", err.Error(), hintFor(err)))
	}
	return append(found, ok("network", "an answer takes %v; one request of %s gets %s",
		p.Answer.Round(100*time.Microsecond), formatSize(p.Bytes), formatRate(p.Bytes, p.Took)))
}

// examineVersion says how a source over a network is pinned: by the commit in its name or, in a
// store without commits, each file by its own version.
func examineVersion(location string, unseen []string) finding {
	const part = "pinned version"
	switch {
	case strings.HasPrefix(location, "hf://"):
		return ok(part, "%s", location)
	case len(unseen) > 0:
		return better(part, location+": the files as they are now, told apart by time and size",
			unseen[0])
	}
	return ok(part, "%s: the files as they are now, each by its ETag", location)
}

// examineDTypes counts the dtypes of the source.
func examineDTypes(c *adapter.Checkpoint) finding {
	dtypes := map[string]int{}
	for _, t := range c.Tensors() {
		dtypes[t.DType.String()]++
	}
	return ok("dtypes", "%s", formatCounts(dtypes))
}

// examineLayouts plans every layout of the checkpoint.
func examineLayouts(c *adapter.Checkpoint, log *slog.Logger) (found []finding) {
	var plans []*adapter.Plan
	for _, layout := range adapter.Layouts(c) {
		p, err := adapter.NewPlan(c, adapter.Options{Layout: layout})
		if err != nil {
			found = append(found, broken("layout "+layout, err.Error(), hintFor(err)))
			continue
		}
		plans = append(plans, p)
		says := fmt.Sprintf("%d tensors, %s in %s", len(p.Tensors), formatSize(planSize(p)),
			strings.ToLower(p.Options.DType.String()))
		if layout == adapter.LayoutNative && adapter.PublishedNative(c) {
			says += ", with the published names"
		}
		found = append(found, ok("layout "+layout, "%s", says))
	}
	sayNotes(log, plans...)
	if why := adapter.Missing(c); why != "" {
		found = append(found, ok("other layouts", "%s", why))
	}
	return found
}

// examineTensors compares the shards with the index.
func examineTensors(c *adapter.Checkpoint) finding {
	const part = "source"
	files := len(c.Shards())
	says := fmt.Sprintf("%d tensors in %d %s", len(c.Tensors()), files,
		plural(files, "file", "files"))
	if absent := c.Absent(); len(absent) > 0 {
		return better(part,
			says+"; the index names others, which no shard holds: "+firstFew(absent),
			"if the model can do without them: --exclude 'NAME'")
	}
	return ok(part, "complete: %s", says)
}

// familyOf returns the family that config.json names.
func familyOf(c *adapter.Checkpoint) string {
	switch {
	case c.IsMistral():
		return "unknown: Mistral's own layout, with params.json in place of config.json"
	case c.Config.Missing():
		return "unknown: config.json is missing"
	}
	if model, similar := adapter.Unknown(c); model != "" {
		return "unknown: " + model + didYouMean(similar)
	}
	return cmp.Or(c.Config.ModelType, "unknown: config.json has no model_type")
}

func planSize(p *adapter.Plan) (n int64) {
	for _, t := range p.Tensors {
		n += t.Node.Size()
	}
	return n
}
