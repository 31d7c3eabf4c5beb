package metric

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// OfProcess are the metrics of this process, by the names that Prometheus' libraries
// give them.
var OfProcess = []*Desc{buildInfo, goroutines, heapInUse, heapAllocated, cpuSeconds, residentMemory, started, openFiles, maxFiles}

var (
	buildInfo      = gauge("build_info", "Always 1; the labels tell which build this is.", "go_version", "version")
	goroutines     = &Desc{Name: "go_goroutines", Help: "Goroutines that exist now."}
	heapInUse      = &Desc{Name: "go_memstats_heap_inuse_bytes", Help: "Heap that is in use."}
	heapAllocated  = &Desc{Name: "go_memstats_alloc_bytes_total", Help: "What was allocated in the heap so far.", Counter: true}
	cpuSeconds     = &Desc{Name: "process_cpu_seconds_total", Help: "User and system time.", Counter: true}
	residentMemory = &Desc{Name: "process_resident_memory_bytes", Help: "Resident memory."}
	started        = &Desc{Name: "process_start_time_seconds", Help: "When the process began to listen for probes and metrics."}
	openFiles      = &Desc{Name: "process_open_fds", Help: "Open file descriptors."}
	maxFiles       = &Desc{Name: "process_max_fds", Help: "How many file descriptors can be open."}
)

// ReadProcess reads what there is to know of this process now. What can't be read is
// not there.
func ReadProcess(version string, since time.Time, each Each) {
	each(buildInfo, 1, runtime.Version(), version)
	each(goroutines, float64(runtime.NumGoroutine()))
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	each(heapInUse, float64(memory.HeapInuse))
	each(heapAllocated, float64(memory.TotalAlloc))
	var cpu unix.Timespec
	if unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &cpu) == nil {
		each(cpuSeconds, time.Duration(cpu.Nano()).Seconds())
	}
	if text, err := os.ReadFile("/proc/self/statm"); err == nil { // proc(5): size and resident, in pages
		if fields := strings.Fields(string(text)); len(fields) > 1 {
			pages, _ := strconv.ParseFloat(fields[1], 64)
			each(residentMemory, pages*float64(os.Getpagesize()))
		}
	}
	each(started, float64(since.UnixMilli())/1e3)
	if files, err := os.ReadDir("/proc/self/fd"); err == nil {
		each(openFiles, float64(len(files)-1)) // without that of the directory
	}
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		each(maxFiles, float64(limit.Cur))
	}
}
