package main

import (
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/mammoth-os/mammoth/internal/id"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// registryCommands show services and their endpoints.
type registryCommands struct{ client }

func (c *registryCommands) registryCommand() *cobra.Command {
	return group("registry", "See where instances are", c.registryListCommand(), c.registryGetCommand(), c.registryWatchCommand())
}

func (c *registryCommands) registryListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List services",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd.Context(), func(z *zone) error {
				answer, err := z.registry.ListServices(cmd.Context(), &apiv1.ListServicesRequest{})
				if err != nil {
					return err
				}
				return c.print(answer, func(w io.Writer) error { return serviceTable(w, answer.GetServices()) })
			})
		},
	}
}

func serviceTable(w io.Writer, services []*apiv1.Service) error {
	t := newTable(w, "NAME", "ENDPOINTS", "HEALTHY", "INDEX")
	for _, service := range services {
		healthy := 0
		for _, endpoint := range service.GetEndpoints() {
			if endpoint.GetState() == apiv1.Endpoint_HEALTHY {
				healthy++
			}
		}
		t.row(service.GetName(), len(service.GetEndpoints()), healthy, service.GetIndex())
	}
	return t.Flush()
}

func (c *registryCommands) registryGetCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "get NAME",
		Short:             "Show the endpoints of a service",
		Args:              names("the name of a service"),
		ValidArgsFunction: firstArgument(c.completeServices),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd.Context(), func(z *zone) error {
				service, err := z.registry.GetService(cmd.Context(), &apiv1.GetServiceRequest{Name: args[0]})
				if err != nil {
					return err
				}
				return c.print(service, func(w io.Writer) error { return endpointTable(w, service.GetEndpoints()) })
			})
		},
	}
}

func endpointTable(w io.Writer, endpoints []*apiv1.Endpoint) error {
	t := newTable(w, "ID", "ADDRESS", "WEIGHT", "STATE", "VERSION", "NODE", "AGE")
	for _, endpoint := range endpoints {
		t.row(endpoint.GetId(), endpointAddress(endpoint), endpoint.GetWeight(), word(endpoint.GetState()),
			endpoint.GetVersion(), endpoint.GetNode(), ago(endpoint.GetRegisteredAt()))
	}
	return t.Flush()
}

func endpointAddress(endpoint *apiv1.Endpoint) string {
	if endpoint.GetPort() == 0 {
		return endpoint.GetAddress()
	}
	return net.JoinHostPort(endpoint.GetAddress(), strconv.Itoa(int(endpoint.GetPort())))
}

func (c *registryCommands) registryWatchCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "watch NAME",
		Short:             "Print the endpoints of a service, then every change",
		Args:              names("the name of a service"),
		ValidArgsFunction: firstArgument(c.completeServices),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			return c.with(ctx, func(z *zone) error {
				stream, err := z.registry.WatchService(ctx, &apiv1.GetServiceRequest{Name: args[0]})
				if err != nil {
					return err
				}
				seen := map[string]string{}
				return receive(ctx, func() error {
					service, err := stream.Recv()
					if err != nil {
						return err
					}
					return c.printOne(service, func(w io.Writer) error { return serviceChanges(w, service, seen) })
				})
			})
		},
	}
}

// serviceChanges writes a line for each new (+), changed (~) or removed (-) endpoint, and stores the present ones.
func serviceChanges(w io.Writer, service *apiv1.Service, seen map[string]string) error {
	at := clock(time.Now())
	now := map[string]string{}
	for _, endpoint := range service.GetEndpoints() {
		now[endpoint.GetId()] = fmt.Sprintf("%s  weight %d  %s  version %d", endpointAddress(endpoint), endpoint.GetWeight(), word(endpoint.GetState()), endpoint.GetVersion())
	}
	for _, name := range slices.SortedFunc(maps.Keys(seen), id.CompareNames) {
		if _, stays := now[name]; !stays {
			fmt.Fprintf(w, "%s  - %s\n", at, name)
			delete(seen, name)
		}
	}
	for _, name := range slices.SortedFunc(maps.Keys(now), id.CompareNames) {
		before, was := seen[name]
		sign := "+"
		switch {
		case was && before == now[name]:
			continue
		case was:
			sign = "~"
		}
		fmt.Fprintf(w, "%s  %s %s  %s\n", at, sign, name, now[name])
	}
	maps.Copy(seen, now)
	if len(now) == 0 {
		_, err := fmt.Fprintf(w, "%s  no endpoints\n", at)
		return err
	}
	return nil
}
