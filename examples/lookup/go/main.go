// Command go is an example of a program that finds the instances of a service of its zone: it prints them now and
// after each change. The registry is in MAMMOTH_REGISTRY.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/mammoth-os/mammoth/companions/lookup"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: lookup SERVICE")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	client, err := lookup.New(lookup.Config{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer client.Close()
	_ = client.Watch(ctx, os.Args[1], func(service lookup.Service) bool {
		for _, endpoint := range service.Endpoints {
			fmt.Printf("%s=%s ", endpoint.ID, endpoint.HostPort())
		}
		fmt.Println()
		return true
	})
}
