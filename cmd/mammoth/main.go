// Command mammoth is all of Mammoth in one binary: the daemons, and the command line with which people use a zone.
//
// It owns the flags, what is printed, and the exit codes. Daemons run in packages of their own, which this one wires; each noun of the
// command line (app, node, queue, lend …) has a file.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // calendars name time zones, and hosts may have no database of them

	"google.golang.org/grpc/grpclog"
)

// version is set by the linker.
var version = "devel"

func main() {
	// gRPC's own log lines are dropped: every caller gets the error itself.
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		if <-signals == syscall.SIGTERM {
			cancel(errTerminated)
		} else {
			cancel(errInterrupted)
		}
		// The second signal ends the process at once.
		<-signals
		os.Exit(exitInterrupted)
	}()
	os.Exit(run(ctx, os.Args[1:], streams{in: os.Stdin, out: os.Stdout, err: os.Stderr}, os.Getenv))
}

// errInterrupted is the cause of a cancellation by SIGINT.
var errInterrupted = errors.New("interrupted")

// errTerminated is the cause of a cancellation by SIGTERM.
var errTerminated = fmt.Errorf("terminated: %w", errInterrupted)
