"""From batches as stored to what a network sees: torch operations on whole batches, on the device.

=================  ============================================================================
`pipeline`         `Preparation`: all of it, in order, as a module whose statistics are buffers
`compatibility`    `IgnPreparation`: the same by the rules of IGN's loader
`build`            which of the two a configuration asks for
`clouds`           which dates of a series are clear
`composites`       means by month or half month
`physical`         decibels, shares, and channels of elevation (`elevation`)
`statistics`       where means and standard deviations come from
`symmetries`       flips and quarter turns
`series`           dates and their padding; `calendar`: days to months
=================  ============================================================================
"""
