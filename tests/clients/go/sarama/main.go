// sarama.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"corelog/clients/common"

	"github.com/IBM/sarama"
)

var codecs = map[string]sarama.CompressionCodec{
	"none":   sarama.CompressionNone,
	"gzip":   sarama.CompressionGZIP,
	"snappy": sarama.CompressionSnappy,
	"lz4":    sarama.CompressionLZ4,
	"zstd":   sarama.CompressionZSTD,
}

func configured() *sarama.Config {
	config := sarama.NewConfig()
	config.Version = sarama.MaxVersion
	config.Metadata.AllowAutoTopicCreation = false
	config.Producer.Return.Successes = true
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Consumer.MaxWaitTime = 100 * time.Millisecond
	return config
}

func write(bootstrap, topic, codec string, records func(func(common.Record) bool)) {
	config := configured()
	config.Producer.Compression = codecs[codec]
	config.Producer.Idempotent = true
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Net.MaxOpenRequests = 1
	// As long as a server may be away.
	config.Producer.Retry.Max, config.Producer.Retry.Backoff = 200, 200*time.Millisecond
	config.Metadata.Retry.Max = 200
	producer := common.Value(sarama.NewAsyncProducer([]string{bootstrap}, config))
	acknowledged := make(chan int)
	go func() {
		count := 0
		for range producer.Successes() {
			count++
		}
		acknowledged <- count
	}()
	go func() {
		for err := range producer.Errors() {
			panic(err)
		}
	}()
	sent := 0
	for record := range records {
		message := &sarama.ProducerMessage{Topic: topic, Partition: record.Partition, Timestamp: time.UnixMilli(record.Timestamp)}
		// An encoder around nil is a value that is empty, and none is a null.
		if record.Key != nil {
			message.Key = sarama.ByteEncoder(record.Key)
		}
		if record.Value != nil {
			message.Value = sarama.ByteEncoder(record.Value)
		}
		for _, header := range record.Headers {
			message.Headers = append(message.Headers, sarama.RecordHeader{Key: []byte(header.Key), Value: header.Value})
		}
		producer.Input() <- message
		sent++
	}
	producer.AsyncClose()
	if count := <-acknowledged; count != sent {
		panic("not everything was acknowledged")
	}
}

func read(bootstrap string, from int64, topics []string, show func(common.Record)) {
	client := common.Value(sarama.NewClient([]string{bootstrap}, configured()))
	consumer := common.Value(sarama.NewConsumerFromClient(client))
	var reading sync.WaitGroup
	for _, topic := range topics {
		for _, partition := range common.Value(client.Partitions(topic)) {
			start := common.Value(client.GetOffset(topic, partition, sarama.OffsetOldest))
			end := common.Value(client.GetOffset(topic, partition, sarama.OffsetNewest))
			if from >= 0 {
				start = common.Value(client.GetOffset(topic, partition, from))
			}
			// Below 0: there is none at or behind that time.
			if start >= 0 && start < end {
				messages := common.Value(consumer.ConsumePartition(topic, partition, start))
				reading.Go(func() { readTo(end, messages, show) })
			}
		}
	}
	reading.Wait()
	common.Must(consumer.Close())
	common.Must(client.Close())
}

func readTo(end int64, reading sarama.PartitionConsumer, show func(common.Record)) {
	for message := range reading.Messages() {
		show(shown(message))
		if message.Offset+1 >= end {
			break
		}
	}
	common.Must(reading.Close())
}

func shown(message *sarama.ConsumerMessage) common.Record {
	record := common.Record{Topic: message.Topic, Partition: message.Partition, Offset: message.Offset}
	record.Timestamp, record.Key, record.Value = message.Timestamp.UnixMilli(), message.Key, message.Value
	for _, header := range message.Headers {
		record.Headers = append(record.Headers, common.Header{Key: string(header.Key), Value: header.Value})
	}
	return record
}

type member struct {
	topic string
	owned common.Owned
}

func (member *member) Setup(session sarama.ConsumerGroupSession) error {
	member.owned.Add(session.Claims()[member.topic]...)
	return nil
}

func (member *member) Cleanup(session sarama.ConsumerGroupSession) error {
	member.owned.Remove(session.Claims()[member.topic]...)
	return nil
}

func (member *member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for message := range claim.Messages() {
		common.Say("at", message.Partition, message.Offset)
		session.MarkMessage(message, "")
		session.Commit()
	}
	return nil
}

func group(bootstrap, topic, name string, leave <-chan struct{}) {
	config := configured()
	config.Consumer.Group.Session.Timeout = 6 * time.Second
	config.Consumer.Group.Heartbeat.Interval = 500 * time.Millisecond
	config.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategyRoundRobin()}
	config.Consumer.Offsets.AutoCommit.Enable = false
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	group := common.Value(sarama.NewConsumerGroup([]string{bootstrap}, name, config))
	until, stop := context.WithCancel(context.Background())
	go func() {
		<-leave
		stop()
	}()
	member := member{topic: topic}
	for until.Err() == nil {
		if err := group.Consume(until, []string{topic}, &member); err != nil && until.Err() == nil {
			// As its documentation has it: the caller tries again, here until the server is back.
			fmt.Fprintln(os.Stderr, err)
			time.Sleep(200 * time.Millisecond)
		}
	}
	common.Must(group.Close())
}

func refusal(bootstrap, topic string) int {
	config := configured()
	// The bound is to be the server's, not the client's.
	config.Producer.MaxMessageBytes = 10_000_000
	producer := common.Value(sarama.NewSyncProducer([]string{bootstrap}, config))
	defer producer.Close()
	value := sarama.ByteEncoder(make([]byte, 200_000))
	_, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: topic, Value: value})
	var refused sarama.KError
	if errors.As(err, &refused) {
		return int(refused)
	}
	common.Must(err)
	return 0
}

func main() {
	common.Client{Write: write, Read: read, Group: group, Errors: refusal}.Main()
}
