package main

import (
	"testing"

	dto "github.com/prometheus/client_model/go"

	"github.com/dequantfs/dequantfs/fs"
)

// TestProcessMetricsHaveTheUsualNames looks for the metrics that dashboards for Go programs show.
func TestProcessMetricsHaveTheUsualNames(t *testing.T) {
	families := parsed(t, exposed(t, fs.Stats{}))
	for name, kind := range map[string]dto.MetricType{
		"go_gc_duration_seconds":          dto.MetricType_SUMMARY,
		"go_goroutines":                   dto.MetricType_GAUGE,
		"go_info":                         dto.MetricType_GAUGE,
		"go_memstats_alloc_bytes":         dto.MetricType_GAUGE,
		"go_memstats_alloc_bytes_total":   dto.MetricType_COUNTER,
		"go_memstats_frees_total":         dto.MetricType_COUNTER,
		"go_memstats_heap_alloc_bytes":    dto.MetricType_GAUGE,
		"go_memstats_heap_idle_bytes":     dto.MetricType_GAUGE,
		"go_memstats_heap_inuse_bytes":    dto.MetricType_GAUGE,
		"go_memstats_heap_objects":        dto.MetricType_GAUGE,
		"go_memstats_heap_released_bytes": dto.MetricType_GAUGE,
		"go_memstats_heap_sys_bytes":      dto.MetricType_GAUGE,
		"go_memstats_mallocs_total":       dto.MetricType_COUNTER,
		"go_memstats_next_gc_bytes":       dto.MetricType_GAUGE,
		"go_memstats_stack_inuse_bytes":   dto.MetricType_GAUGE,
		"go_memstats_sys_bytes":           dto.MetricType_GAUGE,
		"go_threads":                      dto.MetricType_GAUGE,
		"process_cpu_seconds_total":       dto.MetricType_COUNTER,
		"process_max_fds":                 dto.MetricType_GAUGE,
		"process_open_fds":                dto.MetricType_GAUGE,
		"process_resident_memory_bytes":   dto.MetricType_GAUGE,
		"process_start_time_seconds":      dto.MetricType_GAUGE,
		"process_virtual_memory_bytes":    dto.MetricType_GAUGE,
	} {
		f := families[name]
		if len(f.GetMetric()) != 1 || f.GetType() != kind {
			t.Errorf("%s: %v", name, f)
		}
	}
	if n := families["process_resident_memory_bytes"].Metric[0].GetGauge().GetValue(); n < 1<<20 {
		t.Errorf("the process has %g bytes of memory", n)
	}
}
