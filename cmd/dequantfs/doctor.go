package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"runtime"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/dequantfs/dequantfs/adapter"
	"github.com/dequantfs/dequantfs/fp8"
	"github.com/dequantfs/dequantfs/fs"
)

func newDoctor() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "doctor [SOURCE]",
		Short: "say what this machine lacks, and what mends it",
		Long: "Look at FUSE, permissions, kernel settings, CPU kernels and memory, and with a\n" +
			"SOURCE at the checkpoint: whether it is complete, what it is, and how large each\n" +
			"view is. Each line is ok, could be better, or broken, with what mends it. The\n" +
			"exit status is 1 if anything is broken.",
		Example: "  dequantfs doctor\n  dequantfs doctor ~/models/DeepSeek-V3",
		Args:    arity(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			findings := append(examineMachine(c.Context()), examineProgram()...)
			if len(args) > 0 {
				findings = append(findings, examineSource(c, args[0])...)
			}
			if asJSON {
				return errors.Join(writeJSON(c.OutOrStdout(), findings), worst(findings))
			}
			return errors.Join(writeFindings(c.OutOrStdout(), findings), worst(findings))
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// finding is one line of the doctor.
type finding struct {
	State string `json:"state"` // "ok", "could be better", "broken"
	Part  string `json:"part"`
	Says  string `json:"says"`
	Mend  string `json:"mend,omitempty"` // a command, or what else to do
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

// worst is the failure of a doctor who found something broken.
func worst(findings []finding) error {
	for _, f := range findings {
		if f.State == "broken" {
			return quiet{1}
		}
	}
	return nil
}

// writeFindings prints a line for each finding. A reason that breaks several is said once.
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

// examineProgram looks at what is the same on every system.
func examineProgram() []finding {
	kernels := ok("CPU kernels", "%s, %d CPUs", fp8.Implementation(), runtime.GOMAXPROCS(0))
	if fp8.Implementation() == "portable" && runtime.GOARCH == "amd64" {
		kernels = better("CPU kernels", "portable: this CPU has no AVX2, or hides it", "let the virtual machine see the host's CPU (qemu: -cpu host)")
	}
	return []finding{kernels, ok("tensor cache", "%s, unless --cache-size says otherwise", formatSize(fs.DefaultCacheSize()))}
}

// examineSource opens a checkpoint and plans every view of it.
func examineSource(c *cobra.Command, name string) []finding {
	log := logger(c)
	checkpoint, err := adapter.Open(c.Context(), name, adapter.OpenOptions{Logger: log})
	if err != nil {
		return []finding{broken("source", err.Error(), hintFor(err))}
	}
	defer checkpoint.Close()
	tensors := checkpoint.Tensors()
	dtypes := map[string]int{}
	for _, t := range tensors {
		dtypes[t.DType.String()]++
	}
	found := []finding{
		examineTensors(checkpoint),
		ok("dtypes", "%s", formatCounts(dtypes)),
		ok("family", "%s", familyOf(checkpoint)),
	}
	if line, err := summaryOf(checkpoint); err == nil { // else every layout fails with the same error
		found = append(found, ok("weights", "%s", line))
	}
	var plans []*adapter.Plan
	for _, layout := range adapter.Layouts(checkpoint) {
		p, err := adapter.NewPlan(checkpoint, adapter.Options{Layout: layout})
		if err != nil {
			found = append(found, broken("layout "+layout, err.Error(), hintFor(err)))
			continue
		}
		plans = append(plans, p)
		found = append(found, ok("layout "+layout, "%d tensors, %s in bf16", len(p.Tensors), formatSize(planSize(p))))
	}
	sayNotes(log, plans...)
	return append(found, examineDisk(checkpoint.Path)...)
}

// examineTensors compares the shards with the index.
func examineTensors(c *adapter.Checkpoint) finding {
	const part = "source"
	says := fmt.Sprintf("%d tensors in %d %s", len(c.Tensors()), len(c.Shards()), plural(len(c.Shards()), "file", "files"))
	if absent := c.Absent(); len(absent) > 0 {
		return better(part, says+"; the index names others, which no shard holds: "+firstFew(absent), "if the model can do without them: --exclude 'NAME'")
	}
	return ok(part, "complete: %s", says)
}

// familyOf says what config.json says.
func familyOf(c *adapter.Checkpoint) string {
	if c.Config.Missing() {
		return "unknown: there is no config.json"
	}
	return cmp.Or(c.Config.ModelType, "unknown: config.json has no model_type")
}

func planSize(p *adapter.Plan) (n int64) {
	for _, t := range p.Tensors {
		n += t.Node.Size()
	}
	return n
}
