// Command program is the test program of the suite: each subcommand behaves or misbehaves in one way.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// burnt keeps a busy loop from being optimised away.
var burnt atomic.Int64

func main() {
	if len(os.Args) < 2 {
		os.Exit(2)
	}
	os.Exit(run(os.Args[1], os.Args[2:]))
}

func run(command string, args []string) int {
	term := make(chan os.Signal, 1)
	signal.Notify(term, unix.SIGTERM)
	number := func(i int) int {
		if i >= len(args) {
			return 0
		}
		n, _ := strconv.Atoi(args[i])
		return n
	}
	switch command {
	case "exit":
		return number(0)
	case "serve":
		if port := os.Getenv("PORT"); port != "" {
			listener, err := net.Listen("tcp", ":"+port)
			if err != nil {
				return fail(err)
			}
			go answer(listener)
		}
		fmt.Println("serving")
		<-term
		fmt.Println("terminated")
	case "words":
		fmt.Println(args)
	case "signals":
		asked := make(chan os.Signal, 1)
		signal.Notify(asked, unix.SIGTERM, unix.SIGQUIT, unix.Signal(37))
		fmt.Println("waiting")
		fmt.Printf("got %d\n", <-asked)
	case "ignore-term":
		signal.Ignore(unix.SIGTERM)
		fmt.Println("ignoring")
		select {}
	case "lines":
		for i := range number(0) {
			fmt.Printf("line %d\n", i+1)
		}
	case "letters": // one long line
		fmt.Println("x" + strings.Repeat("日", number(0)))
	case "both":
		fmt.Println("out")
		fmt.Fprintln(os.Stderr, "err")
	case "tick":
		for i := range number(0) {
			fmt.Printf("line %d\n", i+1)
			time.Sleep(time.Duration(number(1)) * time.Millisecond)
		}
	case "env":
		env := os.Environ()
		slices.Sort(env)
		for _, entry := range env {
			fmt.Println(entry)
		}
	case "memory":
		held := allocate(number(0))
		fmt.Println("allocated")
		<-term
		runtime.KeepAlive(held)
	case "memory-child":
		// With control groups of version 2 the engine alone tells of what is killed in its first moments, and perhaps late.
		time.Sleep(100 * time.Millisecond)
		if err := exec.Command(os.Args[0], append([]string{"memory"}, args...)...).Run(); err != nil {
			return fail(err)
		}
	case "disk":
		file, err := os.Create("fill")
		if err != nil {
			return fail(err)
		}
		return fill(file, number(0), term)
	case "disk-deleted":
		file, err := os.Create("deleted")
		if err == nil {
			err = os.Remove("deleted")
		}
		if err != nil {
			return fail(err)
		}
		return fill(file, number(0), term)
	case "fork":
		started := 0
		for range number(0) {
			if exec.Command(os.Args[0], "sleep").Start() != nil {
				break
			}
			started++
		}
		fmt.Printf("forked %d\n", started)
		<-term
	case "leave": // something behind that holds on to the output
		child := exec.Command(os.Args[0], "sleep")
		child.Stdout, child.Stderr = os.Stdout, os.Stderr
		if err := child.Start(); err != nil {
			return fail(err)
		}
		fmt.Println("left")
		return number(0)
	case "family", "brood": // one of each kind of child, and then itself; a brood is on its own
		for _, attributes := range []*syscall.SysProcAttr{{}, {Setpgid: true}, {Setsid: true}} {
			child := exec.Command(os.Args[0], "leave")
			child.SysProcAttr = attributes
			if err := child.Run(); err != nil {
				return fail(err)
			}
		}
		fmt.Println("all are there")
		if command == "brood" {
			return 0
		}
		signal.Ignore(unix.SIGTERM, unix.SIGHUP, unix.SIGINT)
		select {}
	case "sleep":
		select {}
	case "cpu":
		deadline := time.Now().Add(time.Duration(number(0)) * time.Second)
		for range runtime.NumCPU() {
			go func() {
				for i := 0; ; i++ {
					burnt.Store(int64(i))
				}
			}()
		}
		fmt.Println("burning")
		<-time.After(time.Until(deadline))
	case "cat":
		if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
			return fail(err)
		}
	case "tty":
		// The size arrives shortly after the start; it is never zero once it was set.
		for {
			size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
			if err != nil {
				return fail(err)
			}
			if size.Row != 0 {
				fmt.Printf("%dx%d\n", size.Row, size.Col)
				return 0
			}
			time.Sleep(time.Millisecond)
		}
	default:
		return 2
	}
	return 0
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

func answer(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			request := make([]byte, 4096)
			if _, err := conn.Read(request); err == nil {
				fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n")
			}
		}()
	}
}

// allocate touches every page of so many MiB.
func allocate(mebibytes int) [][]byte {
	var held [][]byte
	for range mebibytes {
		block := make([]byte, 1<<20)
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1
		}
		held = append(held, block)
	}
	return held
}

// fill writes so many MiB and holds on to them. It exits with 28, ENOSPC's number, when the disk is full.
func fill(file *os.File, mebibytes int, term <-chan os.Signal) int {
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(i)
	}
	for range mebibytes {
		if _, err := file.Write(block); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return int(unix.ENOSPC)
		}
	}
	if err := file.Sync(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return int(unix.ENOSPC)
	}
	fmt.Println("filled")
	<-term
	return 0
}
