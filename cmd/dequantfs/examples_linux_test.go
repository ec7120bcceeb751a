package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// prepare has the commands to run before the examples of a command.
var prepare = map[string]string{
	"umount": "dequantfs mount ~/models/DeepSeek-V3 /mnt/v3",
	"status": "dequantfs mount ~/models/DeepSeek-V3 /mnt/v3",
	"warm":   "dequantfs mount ~/models/DeepSeek-V3 /mnt/v3 --ep all/8",
	"cache":  "mkdir -p /data/cache",
	"serve":  "mkdir -p /data/\necho 0123456789abcdef >/data/token",
	"verify": "dequantfs mount ~/models/DeepSeek-V3 /mnt/v3 --layout hf\n" +
		"dequantfs export ~/models/DeepSeek-V3 /data/v3-bf16 --layout hf",
}

// exampleTools are programs that the examples call: watching and serving end, and a batch
// system runs its array here.
const exampleTools = `
set -e
sbatch() {
	for SLURM_ARRAY_TASK_ID in 0 1 2 3 4 5 6 7; do
		export SLURM_ARRAY_TASK_ID SLURM_ARRAY_TASK_COUNT=8
		eval "$3"
	done
}
watching() {
	rm -f watched
	"$@" >watched &
	pid=$!
	until test -s watched; do sleep 0.01; done
	kill -INT $pid
	wait $pid
}
`

// The example in each help text works, with a small checkpoint in place of the models
// it names.
func TestExamplesInHelpWork(t *testing.T) {
	requireFUSE(t)
	for _, c := range allCommands()[1:] {
		t.Run(c.Name(), func(t *testing.T) {
			if c.Name() == "bench" {
				return // it takes minutes; see its own tests
			}
			runExamples(t, c.Name(), c.Example)
		})
	}
}

func runExamples(t *testing.T, name, examples string) {
	s := newSession(t)
	models := filepath.Join(s.dir, "models")
	if err := os.MkdirAll(models, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, m := range []string{"DeepSeek-V3", "V3"} {
		if err := os.Symlink(s.source, filepath.Join(models, m)); err != nil {
			t.Fatal(err)
		}
	}
	bin := filepath.Join(s.dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(s.program, filepath.Join(bin, "dequantfs")); err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	script.WriteString(exampleTools + prepare[name] + "\n")
	for line := range strings.Lines(examples) {
		if strings.Contains(line, "--watch") {
			line = "watching " + strings.TrimSpace(line)
		}
		if name == "serve" { // at a port that is free
			line = "watching " + strings.TrimSpace(strings.ReplaceAll(line, ":8650", ":0"))
			if !strings.Contains(line, "--listen") {
				line += " --listen :0"
			}
		}
		script.WriteString(strings.TrimSpace(line) + "\n")
		if name == "mount" || name == "export" {
			script.WriteString("dequantfs umount --all\nrm -rf /data/*\n")
		}
	}
	script.WriteString("\ndequantfs umount --all\n")
	text := strings.NewReplacer("/mnt/", s.dir+"/mnt/", "/data/", s.dir+"/data/", " /models/",
		" "+models+"/", " /tmp/", " "+s.dir+"/").Replace(script.String())
	c := s.as(exec.Command("sh", "-c", text))
	c.Env = append(c.Env, "PATH="+bin+":"+os.Getenv("PATH"))
	s.output(c)
}
