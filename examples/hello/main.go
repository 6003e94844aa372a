// Command hello is a small HTTP app to try a zone with: it says who it is, can fall sick and recover, and can burn
// CPU, memory, disk and processes to show that its quotas hold.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

// version is set at build time with -ldflags "-X main.version=2".
var version = "1"

func main() {
	log.SetOutput(os.Stdout)
	if v := os.Getenv("VERSION"); v != "" {
		version = v
	}
	port := flag.String("port", "8080", "the port to listen on when $PORT is not set")
	showVersion := flag.Bool("version", false, "print the version and exit")
	flag.Parse()
	if *showVersion {
		fmt.Println(version)
		return
	}
	if p := os.Getenv("PORT"); p != "" {
		*port = p
	}
	if err := run(*port, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "hello:", err)
		os.Exit(1)
	}
}

// run does what the arguments say; without any it serves until SIGTERM.
func run(port string, args []string) error {
	var command, first, second, third string
	for i, into := range []*string{&command, &first, &second, &third} {
		if i < len(args) {
			*into = args[i]
		}
	}
	switch command {
	case "":
		return serve(port, syscall.SIGTERM, syscall.SIGINT)
	case "ignore-term":
		signal.Ignore(syscall.SIGTERM)
		return serve(port, syscall.SIGINT)
	case "slow-start":
		seconds, err := count(first)
		if err != nil {
			return err
		}
		time.Sleep(time.Duration(seconds) * time.Second)
		return serve(port, syscall.SIGTERM, syscall.SIGINT)
	case "idle":
		wait, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		<-wait.Done()
		return nil
	case "burn":
		return burn(first, second, third)
	case "fork", "exit", "lines":
		n, err := count(first)
		if err != nil {
			return err
		}
		switch command {
		case "fork":
			started, err := fork(n)
			fmt.Printf("started %d of %d processes\n", started, n)
			return err
		case "exit":
			os.Exit(n)
		}
		for i := 1; i <= n; i++ {
			fmt.Println("line", i)
		}
		return nil
	}
	return fmt.Errorf("unknown command %q; see examples/hello/README.md", command)
}

// serve answers until one of the signals comes, then ends the running requests and returns.
func serve(port string, until ...os.Signal) error {
	ctx, stop := signal.NotifyContext(context.Background(), until...)
	defer stop()
	listener, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	log.Printf("hello version %s listens on %s", version, listener.Addr())
	server := &http.Server{Handler: logged(newApp()), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := server.Shutdown(grace); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	log.Print("hello ends")
	return nil
}

// count reads a number that is not negative.
func count(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is not a count", text)
	}
	return n, nil
}
