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
	// smallHeap is for processes that run on every node, or once for each app: their heap is small, and the machine is for
	// other work.
	smallHeap = 40
	// zoneHeap is for a ResourceManager. Most of its memory are the stacks of its nodes' streams, which also let the heap
	// grow; but each collection delays those who wait for containers.
	zoneHeap = 70
)

// spareMemory makes the collector run earlier than by default, when the heap has grown by so many percent. There is no
// limit, near which a process would only collect. GOGC overrides it.
func (c *daemonCommands) spareMemory(percent int) {
	if c.env("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}

// spareProgram unmaps the pages of this program that were mapped so far, and makes the kernel map only the pages that are
// used from now on, one at a time instead of sixteen. An application master uses a small part of a large program, and there
// is one process for each app. If the kernel refuses, it only costs memory.
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
