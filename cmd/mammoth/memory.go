package main

import (
	"bufio"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// smallHeap is for what runs on every node, or once for each app: its heap is small, and its machine is for other
	// work.
	smallHeap = 40
	// zoneHeap is for a ResourceManager. Most of what it holds are the stacks of its nodes' streams, by which the collector
	// lets the heap grow as well; but each collection holds up those who wait for containers.
	zoneHeap = 70
)

// spareMemory has the collector run sooner than by default, when the heap has grown by so many percent. There is no limit,
// near which a process would do nothing but collect. GOGC wins over it.
func (c *cli) spareMemory(percent int) {
	if c.env("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}

// spareProgram unmaps what has been mapped of this program so far, and has the kernel map only the pages that are
// used from now on, one at a time instead of sixteen. An application master uses a small part of a large program, of
// which there is one process for each app. What the kernel refuses only costs memory.
func spareProgram() {
	program, err := os.Executable()
	if err != nil {
		return
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		// 00400000-01234000 r-xp 00000000 fe:00 123 /usr/bin/mammoth
		fields := strings.Fields(lines.Text())
		if len(fields) != 6 || fields[5] != program || strings.Contains(fields[1], "w") {
			continue
		}
		first, last, _ := strings.Cut(fields[0], "-")
		start, err1 := strconv.ParseUint(first, 16, 64)
		end, err2 := strconv.ParseUint(last, 16, 64)
		if err1 != nil || err2 != nil {
			continue
		}
		for _, advice := range []uintptr{unix.MADV_RANDOM, unix.MADV_DONTNEED} {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, uintptr(start), uintptr(end-start), advice)
		}
	}
}
