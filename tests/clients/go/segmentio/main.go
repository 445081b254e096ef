// segmentio's kafka-go.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"corelog/clients/common"

	"github.com/segmentio/kafka-go"
)

var (
	ctx    = context.Background()
	codecs = map[string]kafka.Compression{
		"none":   0,
		"gzip":   kafka.Gzip,
		"snappy": kafka.Snappy,
		"lz4":    kafka.Lz4,
		"zstd":   kafka.Zstd,
	}
)

func write(bootstrap, topic, codec string, records func(func(common.Record) bool)) {
	writer := &kafka.Writer{
		Addr:         kafka.TCP(bootstrap),
		Topic:        topic,
		Compression:  codecs[codec],
		RequiredAcks: kafka.RequireAll,
		BatchTimeout: 5 * time.Millisecond,
		Balancer:     kafka.BalancerFunc(func(message kafka.Message, _ ...int) int { return message.WriterData.(int) }),
	}
	var messages []kafka.Message
	for record := range records {
		message := kafka.Message{Key: record.Key, Value: record.Value, Time: time.UnixMilli(record.Timestamp)}
		message.WriterData = int(record.Partition)
		for _, header := range record.Headers {
			message.Headers = append(message.Headers, kafka.Header(header))
		}
		messages = append(messages, message)
	}
	common.Must(writer.WriteMessages(ctx, messages...))
	common.Must(writer.Close())
}

func read(bootstrap string, from int64, topics []string, show func(common.Record)) {
	seed := common.Value(kafka.Dial("tcp", bootstrap))
	defer seed.Close()
	var reading sync.WaitGroup
	for _, partition := range common.Value(seed.ReadPartitions(topics...)) {
		reading.Go(func() { readOne(bootstrap, from, partition, show) })
	}
	reading.Wait()
}

func readOne(bootstrap string, from int64, partition kafka.Partition, show func(common.Record)) {
	start, end := bounds(bootstrap, from, partition)
	if start < 0 || start >= end {
		return
	}
	config := kafka.ReaderConfig{Brokers: []string{bootstrap}, Topic: partition.Topic, Partition: partition.ID}
	config.MaxWait = 100 * time.Millisecond
	reader := kafka.NewReader(config)
	common.Must(reader.SetOffset(start))
	for offset := start; offset < end; {
		message := common.Value(reader.ReadMessage(ctx))
		show(shown(message))
		offset = message.Offset + 1
	}
	common.Must(reader.Close())
}

func bounds(bootstrap string, from int64, partition kafka.Partition) (int64, int64) {
	leader := common.Value(kafka.DialLeader(ctx, "tcp", bootstrap, partition.Topic, partition.ID))
	defer leader.Close()
	start, end, err := leader.ReadOffsets()
	common.Must(err)
	if from >= 0 {
		start = common.Value(leader.ReadOffset(time.UnixMilli(from)))
	}
	return start, end
}

func shown(message kafka.Message) common.Record {
	record := common.Record{Topic: message.Topic, Partition: int32(message.Partition), Offset: message.Offset}
	record.Timestamp, record.Key, record.Value = message.Time.UnixMilli(), message.Key, message.Value
	for _, header := range message.Headers {
		record.Headers = append(record.Headers, common.Header(header))
	}
	return record
}

func group(bootstrap, topic, name string, leave <-chan struct{}) {
	group := common.Value(kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID:                name,
		Brokers:           []string{bootstrap},
		Topics:            []string{topic},
		GroupBalancers:    []kafka.GroupBalancer{kafka.RoundRobinGroupBalancer{}},
		SessionTimeout:    6 * time.Second,
		HeartbeatInterval: 500 * time.Millisecond,
		StartOffset:       kafka.FirstOffset,
	}))
	until, stop := context.WithCancel(ctx)
	go func() {
		<-leave
		stop()
	}()
	var owned common.Owned
	var before []int32
	for {
		generation, err := group.Next(until)
		if until.Err() != nil {
			common.Must(group.Close())
			return
		}
		if err != nil {
			// The caller tries again, here until the server is back.
			fmt.Fprintln(os.Stderr, err)
			time.Sleep(200 * time.Millisecond)
			continue
		}
		owned.Remove(before...)
		before = nil
		for _, assignment := range generation.Assignments[topic] {
			before = append(before, int32(assignment.ID))
			generation.Start(func(ctx context.Context) { follow(ctx, bootstrap, topic, generation, assignment) })
		}
		owned.Add(slices.Clone(before)...)
	}
}

// follow reads a partition until its generation ends.
func follow(ctx context.Context, bootstrap, topic string, generation *kafka.Generation, from kafka.PartitionAssignment) {
	config := kafka.ReaderConfig{Brokers: []string{bootstrap}, Topic: topic, Partition: from.ID}
	config.MaxWait = 100 * time.Millisecond
	reader := kafka.NewReader(config)
	defer reader.Close()
	common.Must(reader.SetOffset(from.Offset))
	for {
		message, err := reader.ReadMessage(ctx)
		if ctx.Err() != nil {
			return
		}
		common.Must(err)
		common.Say("at", message.Partition, message.Offset)
		next := map[string]map[int]int64{topic: {message.Partition: message.Offset + 1}}
		if err := generation.CommitOffsets(next); err != nil {
			// A rebalance came first: whoever has the partition now reads it again.
			common.Say("uncommitted", err)
		}
	}
}

func refusal(bootstrap, topic string) int {
	writer := &kafka.Writer{Addr: kafka.TCP(bootstrap), Topic: topic, RequiredAcks: kafka.RequireAll, MaxAttempts: 2}
	// The bound is to be the server's, not the client's.
	writer.BatchBytes = 10_000_000
	defer writer.Close()
	err := writer.WriteMessages(ctx, kafka.Message{Value: make([]byte, 200_000)})
	var refused kafka.Error
	if errors.As(err, &refused) {
		return int(refused)
	}
	var several kafka.WriteErrors
	if errors.As(err, &several) && errors.As(several[0], &refused) {
		return int(refused)
	}
	common.Must(err)
	return 0
}

func main() {
	common.Client{Write: write, Read: read, Group: group, Errors: refusal}.Main()
}
