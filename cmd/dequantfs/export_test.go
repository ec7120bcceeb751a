package main

import (
	"errors"
	"strings"
	"testing"
)

func TestExportTakesItsPartFromFlagsAndEnvironment(t *testing.T) {
	type env map[string]string
	slurm := func(id, count, min, step string) env {
		return env{"SLURM_ARRAY_TASK_ID": id, "SLURM_ARRAY_TASK_COUNT": count,
			"SLURM_ARRAY_TASK_MIN": min, "SLURM_ARRAY_TASK_STEP": step}
	}
	tests := []struct {
		name  string
		flags exportFlags
		env   env
		want  share
		err   string // part of it
	}{
		{"nothing said", exportFlags{}, nil, share{0, 1, ""}, ""},
		{"a flag", exportFlags{part: "2/4"}, nil, share{2, 4, "--part"}, ""},
		{"a flag beats the environment", exportFlags{part: "0/1"}, slurm("3", "4", "0", "1"),
			share{0, 1, "--part"}, ""},
		{"a part too many", exportFlags{part: "4/4"}, nil, share{}, "from 0 to N-1"},
		{"a negative part", exportFlags{part: "-1/4"}, nil, share{}, "from 0 to N-1"},
		{"no parts", exportFlags{part: "0/0"}, nil, share{}, "from 0 to N-1"},
		{"no number", exportFlags{part: "a/b"}, nil, share{}, "from 0 to N-1"},
		{"both flags", exportFlags{part: "0/2", parts: 2}, nil, share{}, "exclude each other"},
		{"a Slurm array", exportFlags{}, slurm("3", "4", "0", "1"),
			share{3, 4, "SLURM_ARRAY_TASK_ID"}, ""},
		{"a Slurm array from 1", exportFlags{}, slurm("1", "4", "1", "1"),
			share{0, 4, "SLURM_ARRAY_TASK_ID"}, ""},
		{"a Slurm array in steps", exportFlags{}, slurm("14", "3", "10", "2"),
			share{2, 3, "SLURM_ARRAY_TASK_ID"}, ""},
		{"a Slurm array with gaps", exportFlags{}, slurm("7", "3", "0", "1"), share{},
			"not one of 3 numbers"},
		{"a Slurm array and --parts", exportFlags{parts: 8}, slurm("5", "8", "0", "1"),
			share{5, 8, "SLURM_ARRAY_TASK_ID"}, ""},
		{"a Slurm job without array", exportFlags{}, env{"SLURM_JOB_ID": "7"}, share{0, 1, ""},
			""},
		{"an indexed Job", exportFlags{parts: 8}, env{"JOB_COMPLETION_INDEX": "7"},
			share{7, 8, "JOB_COMPLETION_INDEX"}, ""},
		{"an indexed Job with too few parts", exportFlags{parts: 4},
			env{"JOB_COMPLETION_INDEX": "7"}, share{}, "not a number from 0 to 3"},
		{"an indexed Job without --parts", exportFlags{}, env{"JOB_COMPLETION_INDEX": "0"}, share{},
			"the number of parts is missing"},
		{"parts that nothing numbers", exportFlags{parts: 4}, nil, share{}, "which part this is"},
		{"one part", exportFlags{parts: 1}, nil, share{0, 1, ""}, ""},
		{"fewer than none", exportFlags{parts: -1}, nil, share{}, "a number of parts"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := test.flags.share(func(name string) string { return test.env[name] })
			if test.err != "" {
				var usage usageError
				if err == nil || !strings.Contains(err.Error(), test.err) ||
					!errors.As(err, &usage) {
					t.Errorf("error %v, want wrong usage with %q", err, test.err)
				}
				return
			}
			if err != nil || got != test.want {
				t.Errorf("%+v, %v, want %+v", got, err, test.want)
			}
		})
	}
}
