-- The warehouse that Gold fills: a star of seven dimensions and two facts, loaded by upserts on the primary keys.
--
-- No foreign keys between facts and dimensions: they are loaded independently, and a fact may come before a dimension's
-- row. Columns that a late row may still fill are nullable. Money is DECIMAL(18,2).
-- Customers, sellers, categories, products and statuses have their history beside them: one row a change.

CREATE DATABASE IF NOT EXISTS store_dw CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
USE store_dw;

CREATE TABLE DimDate (
    DateKey INT NOT NULL PRIMARY KEY COMMENT 'yyyymmdd',
    Date DATE NOT NULL,
    Day TINYINT NOT NULL,
    Month TINYINT NOT NULL,
    Quarter TINYINT NOT NULL,
    Year SMALLINT NOT NULL,
    DayOfWeek TINYINT NOT NULL
);

CREATE TABLE DimProduct (
    ProductID INT NOT NULL PRIMARY KEY,
    ProductName VARCHAR(200),
    CategoryID INT,
    SellerID INT
);

CREATE TABLE DimCategory (
    CategoryID INT NOT NULL PRIMARY KEY,
    CategoryName VARCHAR(80)
);

CREATE TABLE DimSeller (
    SellerID INT NOT NULL PRIMARY KEY,
    SellerName VARCHAR(120)
);

CREATE TABLE DimCustomer (
    CustomerID INT NOT NULL PRIMARY KEY,
    CustomerName VARCHAR(120)
);

CREATE TABLE DimOrderStatus (
    StatusID INT NOT NULL PRIMARY KEY,
    StatusName VARCHAR(32)
);

CREATE TABLE DimReason (
    ReasonID INT NOT NULL PRIMARY KEY,
    ReasonType VARCHAR(16),
    ReasonDescription VARCHAR(255)
);

CREATE TABLE FactSales (
    OrderItemID INT NOT NULL PRIMARY KEY,
    OrderID INT NOT NULL,
    ProductID INT NOT NULL,
    SellerID INT,
    CustomerID INT,
    CategoryID INT,
    OrderDateKey INT,
    StatusID INT,
    Quantity INT NOT NULL,
    CurrentPrice DECIMAL(18,2),
    UnitCost DECIMAL(18,2),
    Profit DECIMAL(18,2),
    Revenue DECIMAL(18,2),
    IsPaid BOOLEAN COMMENT 'the order has a payment',
    INDEX (OrderDateKey),
    INDEX (SellerID)
);

CREATE TABLE FactOrderReason (
    OrderItemID INT NOT NULL PRIMARY KEY,
    ReasonID INT,
    OrderID INT NOT NULL,
    SellerID INT,
    OrderDateKey INT,
    StatusID INT
);

CREATE TABLE DimProductHistory (
    ProductID INT NOT NULL,
    ProductName VARCHAR(200),
    CategoryID INT,
    SellerID INT,
    ChangeType VARCHAR(8) NOT NULL,
    ChangedAt TIMESTAMP(6) NOT NULL,
    ChangeSeq VARCHAR(64) NOT NULL COMMENT 'place of the change in the source log: tells changes of one moment apart',
    PRIMARY KEY (ProductID, ChangeSeq)
);

CREATE TABLE DimCategoryHistory (
    CategoryID INT NOT NULL,
    CategoryName VARCHAR(80),
    ChangeType VARCHAR(8) NOT NULL,
    ChangedAt TIMESTAMP(6) NOT NULL,
    ChangeSeq VARCHAR(64) NOT NULL COMMENT 'place of the change in the source log: tells changes of one moment apart',
    PRIMARY KEY (CategoryID, ChangeSeq)
);

CREATE TABLE DimSellerHistory (
    SellerID INT NOT NULL,
    SellerName VARCHAR(120),
    ChangeType VARCHAR(8) NOT NULL,
    ChangedAt TIMESTAMP(6) NOT NULL,
    ChangeSeq VARCHAR(64) NOT NULL COMMENT 'place of the change in the source log: tells changes of one moment apart',
    PRIMARY KEY (SellerID, ChangeSeq)
);

CREATE TABLE DimCustomerHistory (
    CustomerID INT NOT NULL,
    CustomerName VARCHAR(120),
    ChangeType VARCHAR(8) NOT NULL,
    ChangedAt TIMESTAMP(6) NOT NULL,
    ChangeSeq VARCHAR(64) NOT NULL COMMENT 'place of the change in the source log: tells changes of one moment apart',
    PRIMARY KEY (CustomerID, ChangeSeq)
);

CREATE TABLE DimOrderStatusHistory (
    StatusID INT NOT NULL,
    StatusName VARCHAR(32),
    ChangeType VARCHAR(8) NOT NULL,
    ChangedAt TIMESTAMP(6) NOT NULL,
    ChangeSeq VARCHAR(64) NOT NULL COMMENT 'place of the change in the source log: tells changes of one moment apart',
    PRIMARY KEY (StatusID, ChangeSeq)
);
